use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::tests::{House, KEYS, provider};
use super::*;
use crate::records::ProviderRecord;

const OTHER_KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"BB"}]}"#;

fn corp() -> PortName {
    "corp".parse().unwrap()
}

/// A server that answers every request with what it is told at the time.
async fn server(answer: Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.lock().clone();
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/keys")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn url(url: &str) -> JwksSource {
    serde_json::from_value(json!({ "url": { "url": url, "refresh": "1s" } })).unwrap()
}

impl House {
    async fn set(&self, source: JwksSource) {
        let record = ProviderRecord {
            provider: provider("corp", source),
            created_at: SystemTime::now(),
            created_by: String::new(),
            reason: None,
        };
        self.write(Op::put(records::provider_key(&corp()), records::encode(&record).unwrap())).await;
    }

    fn keys(&self) -> Option<String> {
        self.mirror.read(|view| view.settings.keys_of(&corp()).map(str::to_owned))
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn keys_behind_a_url_are_stored_and_the_last_good_ones_stay() {
    let house = House::new().await;
    let answer = Arc::new(Mutex::new(ok(KEYS)));
    let url = url(&server(Arc::clone(&answer)).await);
    let keeper = JwksKeeper::start(Arc::clone(&house.store), Arc::clone(&house.mirror));
    house.set(url).await;
    until("the first keys", || house.keys().as_deref() == Some(KEYS)).await;
    let problem = || keeper.status(&corp()).and_then(|status| status.problem);
    assert_eq!(problem(), None);

    for (bad, word) in [
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(), "503"),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            "302",
        ),
        (ok("{}"), "no list `keys`"),
        (ok(r#"{"keys":[{"kty":"oct","k":"AA"}]}"#), "symmetric"),
        (ok(&" ".repeat(JWKS_LIMIT + 1)), "not valid"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{".to_owned(), "not valid"),
    ] {
        *answer.lock() = bad;
        until(word, || problem().is_some_and(|problem| problem.contains(word))).await;
        assert_eq!(house.keys().as_deref(), Some(KEYS), "{word}");
    }

    let revision = house.mirror.revision();
    *answer.lock() = ok(KEYS);
    until("the same again", || problem().is_none()).await;
    assert_eq!(house.mirror.revision(), revision, "what is not new is not written");
    *answer.lock() = ok(OTHER_KEYS);
    until("new keys", || house.keys().as_deref() == Some(OTHER_KEYS)).await;
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_and_a_provider_that_is_gone_is_forgotten() {
    let house = House::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    std::fs::write(&path, KEYS).unwrap();
    let keeper = JwksKeeper::start(Arc::clone(&house.store), Arc::clone(&house.mirror));
    house.set(JwksSource::File(path.to_str().unwrap().into())).await;
    until("the first keys", || house.keys().as_deref() == Some(KEYS)).await;
    std::fs::write(&path, OTHER_KEYS).unwrap();
    until("the new keys", || house.keys().as_deref() == Some(OTHER_KEYS)).await;
    std::fs::remove_file(&path).unwrap();
    until("the problem", || keeper.status(&corp()).is_some_and(|status| status.problem.is_some())).await;
    assert_eq!(house.keys().as_deref(), Some(OTHER_KEYS));

    house.write(Op::delete(records::provider_key(&corp()))).await;
    until("forgotten", || keeper.statuses().is_empty()).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let began = Instant::now();
    let error = Fetcher::default().get(&url).await.unwrap_err();
    assert!(error.to_string().contains("within 5 s") && began.elapsed() < Duration::from_secs(20), "{error}");
    let error = Fetcher::default().get("http://192.0.2.1.invalid/keys").await.unwrap_err();
    assert!(!error.to_string().is_empty());
}
