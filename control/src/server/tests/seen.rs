//! What was seen of calls, asked for and followed.

use postern_intentions::{Action, Intention, Protocol};
use serde_json::json;

use super::*;
use crate::records::{self, AccessPolicyRecord, AccessTokenRecord, Links, RecordKey};
use crate::store::{Op, Txn};

fn edge(peer: &str, verdict: &str, shape: &str, count: u64) -> v1::SeenEdge {
    v1::SeenEdge {
        peer: peer.into(),
        port: "main".into(),
        protocol: "http".into(),
        verdict: verdict.into(),
        because: "default (audit)".into(),
        method: "GET".into(),
        shape: shape.into(),
        sample: shape.replace("{id}", "7"),
        count,
        errors: 1,
        bytes_in: 10,
        bytes_out: 20,
        latency: vec![4, count],
        ..v1::SeenEdge::default()
    }
}

fn edges(edges: Vec<v1::SeenEdge>) -> v1::Seen {
    v1::Seen { edges, ..v1::Seen::default() }
}

fn decision(peer: &str, verdict: &str) -> v1::Seen {
    let decision = v1::SeenDecision {
        peer: peer.into(),
        port: "main".into(),
        protocol: "http".into(),
        verdict: verdict.into(),
        because: "default (deny)".into(),
        method: "GET".into(),
        path: "/x".into(),
        status: 403,
        count: 1,
        ..v1::SeenDecision::default()
    };
    v1::Seen { decisions: vec![decision], ..v1::Seen::default() }
}

/// A stream of events.
struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    /// The next event and its data; nothing at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        tokio::time::timeout(Duration::from_secs(20), self.take()).await.expect("an event in time")
    }

    async fn take(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let Some((name, data)) = event.split_once('\n') else { continue };
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                return Some((name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()));
            }
            let frame = self.body.frame().await?.ok()?;
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    }
}

impl Rig {
    /// Followed from when this is ready.
    async fn follow_as(&self, query: &str, secret: &str) -> Events {
        let response = self.ask(&format!("/v1/live?{query}"), secret).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }

    async fn follow(&self, query: &str) -> Events {
        self.follow_as(query, &self.operator()).await
    }

    async fn write(&self, ops: Vec<Op>) {
        let store: Arc<dyn Store> = Arc::clone(&self.control.engine) as Arc<dyn Store>;
        store.txn(Txn { then: ops, ..Txn::default() }).await.unwrap();
    }

    /// The secret of a token with these rules.
    async fn token(&self, rules: &str) -> &'static str {
        let secret = "11111111-1111-4111-8111-111111111111";
        let policy = AccessPolicyRecord {
            id: "p".into(),
            name: "p".into(),
            description: String::new(),
            rules: rules.into(),
            created_in: None,
        };
        let token = AccessTokenRecord {
            links: Links { policies: vec!["p".into()], ..Links::default() },
            accessor: "a".into(),
            ..crate::acl::anonymous()
        };
        let put = |key: RecordKey, value| Op::put(key.to_bytes(), value);
        self.write(vec![
            put(RecordKey::AccessPolicy("p".into()), records::encode(&policy).unwrap()),
            put(RecordKey::AccessToken(crate::acl::hash_of(secret)), records::encode(&token).unwrap()),
        ])
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        secret
    }
}

#[tokio::test]
async fn edges_are_told_with_their_counts_and_folded_to_pairs() {
    let rig = Rig::start().await;
    rig.tell(
        "api",
        edges(vec![edge("web", "audit", "/v1/{id}", 4), edge("web", "audit", "/v2", 6), edge("db", "deny", "/v2", 1)]),
    );
    let seen = rig.get("/v1/edges").await;
    let rows = seen["edges"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let row = &rows[1];
    for (field, value) in [
        ("source", json!("web")),
        ("destination", json!("api")),
        ("port", json!("main")),
        ("protocol", json!("http")),
        ("verdict", json!("audit")),
        ("because", json!("default (audit)")),
        ("method", json!("GET")),
        ("shape", json!("/v1/{id}")),
        ("sample", json!("/v1/7")),
        ("count", json!(4)),
        ("errors", json!(1)),
        ("bytes_out", json!(20)),
        ("p50_ms", json!(0.256)),
        ("instances", json!(1)),
        ("open", json!(0)),
    ] {
        assert_eq!(row[field], value, "{field} of {row}");
    }
    assert_eq!(row["recent"]["count"], 4);
    let pairs = rig.get("/v1/edges?by=pair&source=web&verdict=audit,allow&service=api").await;
    assert_eq!(pairs["edges"].as_array().unwrap().len(), 1);
    assert_eq!((&pairs["edges"][0]["count"], &pairs["edges"][0]["method"]), (&json!(10), &Value::Null));
    for nothing in ["source=api", "destination=web", "verdict=failed", "service=other", "verdict=deny&source=web"] {
        assert_eq!(rig.get(&format!("/v1/edges?{nothing}")).await["edges"], json!([]), "{nothing}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn who_may_not_read_the_intentions_of_a_destination_sees_nobody_call_it() {
    let rig = Rig::start().await;
    let secret = rig.token("intentions \"api\" { policy = \"read\" }").await;
    rig.tell("api", edges(vec![edge("web", "allow", "/", 4)]));
    rig.tell("db", edges(vec![edge("web", "allow", "/", 4)]));
    let seen = rig.get_as("/v1/edges", secret).await;
    assert_eq!(seen["edges"].as_array().unwrap().len(), 1);
    assert_eq!(seen["edges"][0]["destination"], "api");
    let mut events = rig.follow_as("what=decisions", secret).await;
    rig.tell("db", decision("web", "deny"));
    rig.tell("api", decision("web", "deny"));
    let (name, told) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &told["destination"]), ("decision", &json!("api")));
    // With another right than the one that it came with, a reader has to come again.
    rig.token("intentions \"db\" { policy = \"read\" }").await;
    rig.tell("api", decision("web", "deny"));
    assert_eq!(events.next().await, None);
    rig.stop().await;
}

#[tokio::test]
async fn decisions_edges_and_changes_are_followed_and_the_stream_ends_with_the_control_plane() {
    let rig = Rig::start().await;
    let mut denials = rig.follow("what=decisions&verdict=deny,audit&service=web").await;
    rig.tell("api", decision("web", "allow"));
    rig.tell("api", decision("db", "deny"));
    rig.tell("api", decision("web", "deny"));
    let (name, told) = denials.next().await.unwrap();
    assert_eq!((name.as_str(), &told["verdict"], &told["source"]), ("decision", &json!("deny"), &json!("web")));
    assert_eq!((&told["path"], &told["status"], &told["instance"]), (&json!("/x"), &json!(403), &json!("api-1")));

    let mut changes = rig.follow("what=changes").await;
    let intention = Intention::new("web".parse().unwrap(), "api".parse().unwrap(), Action::Allow);
    let record = records::IntentionRecord {
        created_at: SystemTime::now(),
        created_by: String::new(),
        reason: None,
        changed_in: None,
        intention,
    };
    rig.write(vec![Op::put(records::intention_key(&record.intention.key()), records::encode(&record).unwrap())]).await;
    let (name, told) = changes.next().await.unwrap();
    assert_eq!(name, "change");
    assert!(told["revision"].as_u64().unwrap() > 1);

    let mut rows = rig.follow("what=edges").await;
    rig.tell("api", edges(vec![edge("web", "allow", "/", 4)]));
    let (name, told) = rows.next().await.unwrap();
    assert_eq!((name.as_str(), &told["edges"][0]["count"]), ("edges", &json!(4)));
    rig.tell("api", edges(vec![edge("web", "allow", "/other", 1)]));
    let (_, told) = rows.next().await.unwrap();
    assert_eq!(told["edges"].as_array().unwrap().len(), 1, "what did not change is not told again: {told}");
    assert_eq!(told["edges"][0]["shape"], "/other");

    let ended = async { tokio::join!(denials.next(), changes.next(), rows.next()) };
    let (ended, _) = tokio::join!(ended, rig.stop());
    assert_eq!(ended, (None, None, None));
}

#[tokio::test]
async fn a_slow_reader_is_told_that_it_lagged() {
    let rig = Rig::start().await;
    let mut events = rig.follow("what=decisions").await;
    for _ in 0..200 {
        let seen = decision("web", "deny");
        let decisions = vec![seen.decisions[0].clone(); 100];
        rig.tell("api", v1::Seen { decisions, ..v1::Seen::default() });
    }
    let mut told = 0;
    loop {
        match events.next().await.unwrap().0.as_str() {
            "decision" => told += 1,
            "lagged" => break,
            other => panic!("{other}"),
        }
    }
    assert!(told < 20_000);
    rig.stop().await;
}

#[tokio::test]
async fn no_more_follow_than_there_are_places_and_a_place_that_is_left_is_free() {
    let rig = Rig::start().await;
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(rig.follow("what=changes").await);
    }
    assert_eq!(rig.ask("/v1/live", &rig.operator()).await.status(), 503);
    all.pop();
    let freed = async {
        while rig.ask("/v1/live?for_s=1", &rig.operator()).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), freed).await.expect("a place is free");
    drop(all);
    rig.stop().await;
}

#[tokio::test]
async fn one_token_does_not_hold_the_places_of_all() {
    let rig = Rig::start().await;
    let secret = rig.token("intentions \"api\" { policy = \"read\" }").await;
    let mut all = Vec::new();
    for _ in 0..16 {
        all.push(rig.follow_as("what=changes", secret).await);
    }
    let refused = rig.ask("/v1/live", secret).await;
    assert_eq!(refused.status(), 429);
    let said = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&said).contains("16 follow already with this token"), "{said:?}");
    all.push(rig.follow("what=changes").await);
    drop(all);
    rig.stop().await;
}

#[tokio::test]
async fn a_suggestion_and_a_plan_say_what_had_no_room() {
    let rig = Rig::start().await;
    let plan = json!({ "intentions": [], "dry_run": true });
    rig.tell("api", edges(vec![edge("web", "audit", "/", 1)]));
    for made in
        [rig.send("POST", "/v1/suggest", &json!({})).await, rig.send("PUT", "/v1/intentions", &plan).await["effects"].take()]
    {
        assert!(made.get("left_out").is_none() && !made.to_string().contains("no room"), "{made}");
    }
    // 2,000 edges and 200 rests are kept of what one service tells.
    for caller in (0..2_300).collect::<Vec<u32>>().chunks(1_000) {
        rig.tell("api", edges(caller.iter().map(|caller| edge(&format!("c{caller}"), "audit", "/", 1)).collect()));
    }
    let said = "there was no room for 101 calls since the control plane started";
    let suggested = rig.send("POST", "/v1/suggest", &json!({})).await;
    assert_eq!((suggested["left_out"].as_u64(), suggested["intentions"].as_array().unwrap().len()), (Some(101), 2_200));
    assert!(suggested["file"].as_str().unwrap().contains(said) && suggested["notes"].to_string().contains(said));
    let effects = rig.send("PUT", "/v1/intentions", &plan).await["effects"].take();
    assert_eq!(effects["left_out"], 101);
    assert!(effects["notes"].to_string().contains(said), "{effects}");
    rig.stop().await;
}

#[tokio::test]
async fn a_rule_for_every_path_is_named_in_the_file_and_what_it_means_for_a_plan_too() {
    let rig = Rig::start().await;
    let http = records::encode(&records::ServiceRecord { protocol: Protocol::Http }).unwrap();
    rig.write(vec![Op::put(RecordKey::Service("api".parse().unwrap()).to_bytes(), http)]).await;
    let any = v1::SeenEdge { sample: String::new(), ..edge("job", "audit", "…", 7) };
    rig.tell("api", edges(vec![edge("web", "audit", "/a", 1), any]));
    let suggested = async {
        loop {
            let suggested = rig.send("POST", "/v1/suggest", &json!({ "l7": true })).await;
            // What was written reaches the mirror a moment later.
            if suggested["file"].as_str().unwrap().contains("permissions") {
                return suggested;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let suggested = tokio::time::timeout(Duration::from_secs(20), suggested).await.expect("api speaks http");
    let file = suggested["file"].as_str().unwrap();
    assert_eq!(file.matches("this rule allows every path").count(), 1, "{file}");
    let note = "job -> api allows every path for GET: the paths seen were too many to tell apart";
    assert!(file.contains(note) && suggested["notes"].to_string().contains(note), "{suggested}");
    let narrow = json!({ "source": "job", "destination": "api", "permissions": [{ "action": "allow", "path_prefix": "/a" }] });
    let plan = rig.send("PUT", "/v1/intentions", &json!({ "intentions": [narrow], "dry_run": true })).await;
    assert!(plan["effects"]["notes"].to_string().contains("the paths of 7 calls were too many to tell apart"), "{plan}");
    rig.stop().await;
}

#[tokio::test]
async fn a_plan_judges_all_that_is_kept_unless_it_is_told_how_far_to_look_back() {
    let rig = Rig::start().await;
    rig.send("PUT", "/v1/intentions/job/api", &json!({ "verb": "allow" })).await;
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let teller = Teller { stream: 1, service: "api".parse().unwrap(), instance: "api-1".parse().unwrap() };
    let mut allowance = Allowance::full(tokio::time::Instant::now());
    rig.control.mesh.traffic().take(&teller, &mut allowance, edges(vec![edge("job", "allow", "/month", 3)]), now - 20 * day);
    let plan = async |since_s: Value| {
        let planned = rig.send("PUT", "/v1/intentions", &json!({ "intentions": [], "dry_run": true, "since_s": since_s })).await;
        let effects = &planned["effects"];
        let hour = effects["since"].as_str().unwrap()[..13].to_owned();
        (effects["newly_denied"].as_array().map_or(0, Vec::len), hour)
    };
    let then = crate::http::rfc3339(now - 20 * day)[..13].to_owned();
    assert_eq!(
        plan(Value::Null).await,
        (1, then.clone()),
        "a monthly job would be cut off, and it is said how far was looked back"
    );
    assert_eq!(plan(json!(86_400)).await.0, 0);
    assert_eq!(plan(json!(30 * 86_400)).await, (1, then));
    rig.stop().await;
}

/// The counts of the rows, in their order.
fn counts(seen: &Value) -> Vec<u64> {
    seen["edges"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_was_seen_outlives_a_restart() {
    let rig = Rig::start().await;
    let many = (0..450).map(|number| edge("web", "audit", &format!("/v1/p{number}x"), 2)).collect();
    rig.tell("api", edges(many));
    rig.tell("db", edges(vec![edge("api", "deny", "/v1/{id}", 7)]));
    let before = rig.get("/v1/edges").await;
    assert_eq!(before["edges"].as_array().unwrap().len(), 201);
    let rig = Rig::start_in(rig.stop().await).await;
    let mut after = rig.get("/v1/edges").await;
    let mut before = before;
    for seen in [&mut before, &mut after] {
        for row in seen["edges"].as_array_mut().unwrap() {
            // What was a moment ago is not kept, nor is it exact to the microsecond.
            for field in ["recent", "rate", "first_seen", "last_seen"] {
                row.as_object_mut().unwrap().remove(field);
            }
        }
    }
    assert_eq!(before["edges"], after["edges"]);
    // It goes on from there.
    rig.tell("db", edges(vec![edge("api", "deny", "/v1/{id}", 1)]));
    assert_eq!(counts(&rig.get("/v1/edges?destination=db").await), [8]);
    rig.stop().await;
}

#[tokio::test]
async fn what_was_written_outlives_the_process_and_only_what_changed_is_written() {
    let rig = Rig::start().await;
    rig.tell("api", edges(vec![edge("web", "allow", "/", 3)]));
    rig.tell("db", edges(vec![edge("api", "allow", "/", 3)]));
    let traffic = rig.control.mesh.traffic();
    traffic.keep().await.unwrap();
    let store: Arc<dyn Store> = Arc::clone(&rig.control.engine) as Arc<dyn Store>;
    let kept = async || store.range(b"edges/", 0).await.unwrap().kvs;
    let before = kept().await;
    assert_eq!(before.len(), 2);
    let revision = store.revision();
    traffic.keep().await.unwrap();
    assert_eq!(store.revision(), revision, "nothing changed");
    rig.tell("api", edges(vec![edge("web", "allow", "/", 1)]));
    traffic.keep().await.unwrap();
    let after = kept().await;
    let changed = before.iter().zip(&after).filter(|(before, after)| before.mod_revision != after.mod_revision).count();
    assert_eq!(changed, 1);
    // Another reads what is there while this one never stopped.
    let other = crate::edges::Traffic::start(Arc::clone(&store), Duration::from_secs(60)).await.unwrap();
    let selection = other.select(&postern_edges::Filter::default(), SystemTime::UNIX_EPOCH, postern_edges::By::Edge);
    assert_eq!(selection.edges.iter().map(|seen| seen.sighting.tally.count).collect::<Vec<_>>(), [4, 3]);
    rig.stop().await;
}
