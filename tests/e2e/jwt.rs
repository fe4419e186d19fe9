//! Permissions that ask for tokens: the example of `docs/jwt.md`, with keys of our own.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::support::{Mesh, Pair, Process, Service, curl, eventually, script};

/// The YAML of the page, the first block and the second.
fn example() -> [String; 2] {
    let page = include_str!("../../docs/jwt.md");
    let block = |text: &str| text.lines().map(|line| line.strip_prefix("   ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    let mut blocks = page.split("```yaml\n").skip(1).map(|rest| block(rest.split("```").next().unwrap()));
    [blocks.next().unwrap(), blocks.next().unwrap()]
}

/// Base64url without padding (RFC 7515 §2).
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).for_each(|at| text.push(char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize])));
    }
    text
}

/// Who signs tokens.
struct Issuer {
    name: &'static str,
    key: Ed25519KeyPair,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        Self { name, key: Ed25519KeyPair::generate().unwrap() }
    }

    fn keys(&self) -> String {
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": base64url(self.key.public_key().as_ref())}]}).to_string()
    }

    /// A token that is good for an hour, with these claims beside or in place of the usual ones.
    fn token(&self, claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut all = json!({"iss": self.name, "aud": "shop", "sub": "ada", "exp": now + 3_600});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let signed = format!("{}.{}", base64url(br#"{"alg":"EdDSA"}"#), base64url(all.to_string().as_bytes()));
        format!("{signed}.{}", base64url(self.key.sign(signed.as_bytes()).as_ref()))
    }
}

#[test]
fn the_example_of_tokens_does_what_it_says() {
    let pair = Pair::allowed("http");
    let (people, jobs) = (Issuer::new("https://login.example.com"), Issuer::new("https://ci.example.com"));
    let write = |name: &str, text: String| {
        let path = pair.mesh.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let [providers, intentions] = example();
    let of_people = write("people.json", people.keys());
    let url = "{url: {url: \"https://login.example.com/.well-known/jwks.json\", refresh: 5m}}";
    assert!(providers.contains(url) && providers.contains("/etc/postern/ci-jwks.json"), "the page has changed: {providers}");
    let providers = providers.replace(url, &format!("{{file: {of_people}}}"));
    pair.mesh.set(&providers.replace("/etc/postern/ci-jwks.json", &write("jobs.json", jobs.keys())));
    pair.mesh.apply(&intentions);

    let ask = |method: &str, path: &str, header: &str| {
        curl(&["-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-H", header, &format!("http://{}{path}", pair.upstream())])
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (ada, staff) = (people.token(json!({})), people.token(json!({"realm_access": {"roles": ["staff", "other"]}})));
    let build = |reference: &str| bearer(&jobs.token(json!({"ref": reference})));
    eventually("the keys are there", || (ask("GET", "/headers", &bearer(&ada)) == "200").then_some(()));
    eventually("so are the others", || (ask("POST", "/v1/import", &build("refs/heads/main")) == "200").then_some(()));
    let refused = || pair.api.metric("postern_jwt_refused_total", &[]);
    let before = refused();

    assert_eq!(ask("GET", "/x", "X-No: token"), "403");
    assert_eq!(ask("GET", "/x", &format!("Cookie: session={ada}; other=1")), "200");
    assert_eq!(ask("POST", "/v1/orders/1", &bearer(&ada)), "403");
    assert_eq!(ask("POST", "/v1/orders/1", &bearer(&staff)), "200");
    assert_eq!(ask("POST", "/v1/import", &build("refs/heads/main")), "200");
    assert_eq!(ask("POST", "/v1/import", &build("refs/heads/mine")), "403");
    assert_eq!(ask("POST", "/v1/import", &bearer(&staff)), "403", "of the other provider");
    assert_eq!(refused(), before, "both look for tokens in the same place, and each was taken by one");

    let stranger = Issuer::new("https://login.example.com");
    let altered = format!(
        "{}.{}.{}",
        ada.split('.').next().unwrap(),
        base64url(br#"{"iss":"https://login.example.com"}"#),
        ada.split('.').nth(2).unwrap()
    );
    let unsigned = format!("{}.{}.", base64url(br#"{"alg":"none"}"#), ada.split('.').nth(1).unwrap());
    for (what, token) in [
        ("another key", stranger.token(json!({}))),
        ("expired", people.token(json!({"exp": 1_000_000}))),
        ("not yet", people.token(json!({"nbf": 4_000_000_000_u64}))),
        ("for others", people.token(json!({"aud": "bank"}))),
        ("another issuer", people.token(json!({"iss": "https://login.example.com/"}))),
        ("altered", altered),
        ("unsigned", unsigned),
        ("empty", String::new()),
        ("no token", "x.y.z".into()),
    ] {
        let before = refused();
        assert_eq!(ask("GET", "/bad", &bearer(&token)), "403", "{what}");
        // A header that ends behind the scheme has none.
        let of_it = if token.is_empty() { 0.0 } else { 1.0 };
        assert_eq!(refused(), before + of_it, "{what}: counted once, not for each provider");
    }
    let seen = pair.service.requests();
    assert!(!seen.iter().any(|request| request["path"] == "/bad"));
    assert!(
        !seen.iter().any(|request| request["path"] == "/headers" && request.to_string().contains(&ada)),
        "it is not forwarded"
    );

    // The people's issuer has new keys: a token of the old ones, verified before, is good no more.
    write("people.json", stranger.keys());
    eventually("the new keys count", || (ask("GET", "/x", &bearer(&stranger.token(json!({})))) == "200").then_some(()));
    assert_eq!(ask("GET", "/x", &bearer(&ada)), "403");
}

/// Certificates of two authorities, one of which is trusted, for a server on this host.
fn certificates(directory: &Path) {
    let line = "for ca in trusted stranger; do
          openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca \\
            -addext keyUsage=critical,keyCertSign
          openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca-server.key -out $ca.csr -subj /CN=server
          printf 'subjectAltName=DNS:localhost\n' > $ca.ext
          openssl x509 -req -in $ca.csr -CA $ca.pem -CAkey $ca.key -CAcreateserial -days 2 -extfile $ca.ext -out $ca-server.pem
        done";
    let output = Command::new("bash").args(["-euc", line]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn keys_are_fetched_over_https_from_whom_the_roots_of_the_system_vouch_for() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    certificates(directory.path());
    let served = path("served");
    std::fs::create_dir(&served).unwrap();
    let people = Issuer::new("https://login.example.com");
    std::fs::write(served.join("keys.json"), people.keys()).unwrap();
    let serve = |ca: &str, version: &str| {
        let mut command = script("https_files.py");
        command.arg(&served).arg(path(&format!("{ca}-server.pem"))).arg(path(&format!("{ca}-server.key"))).arg(version);
        let process = Process::start_announcing(&mut command, &path(&format!("{ca}.log")));
        let port = process.line();
        (process, port)
    };
    let (trusted, stranger) = (serve("trusted", "TLSv1_3"), serve("stranger", "TLSv1_3"));
    let older = serve("trusted", "TLSv1_2");

    let mesh = Mesh::start_trusting(&path("trusted.pem"));
    let pair = Pair::of(mesh, "http", |mesh| Service::start(mesh, "http_service.py"));
    let provider = |name: &str, host: &str, port: &str| {
        format!(
            "- {{name: {name}, issuer: \"https://login.example.com\", from: [{{header: {{name: x-{name}}}}}], \
             jwks: {{url: {{url: \"https://{host}:{port}/keys.json\", refresh: 1s}}}}}}\n"
        )
    };
    let providers = [
        provider("people", "localhost", &trusted.1),
        provider("older", "localhost", &older.1),
        provider("strangers", "localhost", &stranger.1),
        provider("misnamed", "127.0.0.1", &trusted.1),
    ];
    pair.mesh.set(&format!("jwt_providers:\n{}", providers.concat()));
    let names = ["people", "older", "strangers", "misnamed"];
    let permissions = names.map(|name| format!("{{action: allow, path_prefix: /{name}, jwt: [{{provider: {name}}}]}}"));
    pair.permit(&format!("[{}]", permissions.join(", ")));
    let ask = |name: &str, issuer: &Issuer| {
        let header = format!("x-{name}: {}", issuer.token(json!({})));
        curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &format!("http://{}/{name}", pair.upstream())])
    };
    for name in ["people", "older"] {
        eventually("the keys are there", || (ask(name, &people) == "200").then_some(()));
    }
    for name in ["strangers", "misnamed"] {
        let problem = eventually("it is told why there are none", || {
            let config = pair.mesh.json(&["service", "config", "show"]);
            let all = config["jwt_providers"].as_array().unwrap().clone();
            let keys = all.iter().find(|stored| stored["provider"]["name"] == name).map(|stored| stored["keys"].clone()).unwrap();
            keys["problem"].as_str().map(str::to_owned)
        });
        assert!(problem.contains("TLS handshake"), "{name}: {problem}");
        assert_eq!(ask(name, &people), "403", "{name}: no key is taken from there");
    }

    let new = Issuer::new("https://login.example.com");
    std::fs::write(served.join("keys.json"), new.keys()).unwrap();
    eventually("the new keys count", || (ask("people", &new) == "200").then_some(()));
    assert_eq!(ask("people", &people), "403");
}
