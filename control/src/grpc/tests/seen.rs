//! What sidecars tell of calls.

use postern_edges::{By, Filter, Verdict};

use super::*;

fn edge(peer: &str, verdict: &str, count: u64) -> v1::SeenEdge {
    v1::SeenEdge {
        peer: peer.into(),
        port: "main".into(),
        protocol: "http".into(),
        verdict: verdict.into(),
        because: "default".into(),
        method: "GET".into(),
        shape: "/v1/{id}".into(),
        count,
        ..v1::SeenEdge::default()
    }
}

fn decision(peer: &str, verdict: &str) -> v1::SeenDecision {
    v1::SeenDecision {
        peer: peer.into(),
        port: "main".into(),
        protocol: "http".into(),
        verdict: verdict.into(),
        because: "default".into(),
        method: "GET".into(),
        path: "/v1/7?secret=1".into(),
        status: 403,
        count: 1,
        ..v1::SeenDecision::default()
    }
}

fn rows(rig: &Rig) -> Vec<(String, String, Verdict, u64, u64)> {
    let selection = rig.traffic.select(&Filter::default(), SystemTime::now() - DAY, By::Edge);
    let row = |seen: postern_edges::Seen| {
        let edge = seen.sighting.edge;
        (edge.source.to_string(), edge.destination.to_string(), edge.verdict, seen.sighting.tally.count, seen.open)
    };
    selection.edges.into_iter().map(row).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_sidecar_tells_of_its_own_service_and_what_cannot_be_is_left_out_one_by_one() {
    let rig = rig().await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;
    let nonsense = [
        v1::SeenEdge { peer: "*".into(), ..edge("web", "allow", 1) },
        v1::SeenEdge { verdict: "maybe".into(), ..edge("web", "allow", 1) },
        v1::SeenEdge { outbound: true, ..edge("db", "allow", 1) },
        v1::SeenEdge { shape: "no path".into(), ..edge("web", "allow", 1) },
    ];
    let failed = v1::SeenEdge { outbound: true, method: String::new(), shape: String::new(), ..edge("db", "failed", 2) };
    let edges = nonsense.into_iter().chain([edge("web", "allow", 5), edge("web", "deny", 1), failed]).collect();
    let open =
        vec![v1::OpenCalls { peer: "web".into(), port: "main".into(), method: "GET".into(), shape: "/v1/{id}".into(), count: 3 }];
    let seen = v1::Seen {
        edges,
        tells_open: true,
        open,
        decisions: vec![decision("web", "deny"), decision("", "deny")],
        ..v1::Seen::default()
    };
    api.send(Up::Seen(seen)).await;
    until("it was counted", || rig.traffic.counts().refused == 5 && rows(&rig).iter().any(|row| row.4 > 0)).await;
    let of =
        |source: &str, destination: &str, verdict, count, open| (source.to_owned(), destination.to_owned(), verdict, count, open);
    assert_eq!(
        rows(&rig),
        [of("web", "api", Verdict::Allow, 5, 3), of("web", "api", Verdict::Deny, 1, 0), of("api", "db", Verdict::Failed, 2, 0),]
    );
    let (web, api_name) = ("web".parse().unwrap(), "api".parse().unwrap());
    let lately = rig.traffic.lately(&web, &api_name);
    assert_eq!((lately.len(), lately[0].path.as_deref(), lately[0].instance.as_str()), (1, Some("/v1/7"), "api-1"));
    // The stream goes on, and with its end nothing is open any more.
    rig.intend("web", "api", Action::Deny).await;
    api.until(|api| api.knows("intention/web/api")).await;
    drop(api);
    until("nothing is open", || rows(&rig).iter().all(|row| row.4 == 0)).await;
}

#[tokio::test]
async fn a_sidecar_that_tells_too_much_keeps_its_stream_and_is_cut_short() {
    let rig = rig().await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    api.settle().await;
    for _ in 0..30 {
        let edges = (0..400).map(|number| edge(&format!("s{number}"), "allow", 1)).collect();
        api.send(Up::Seen(v1::Seen { edges, ..v1::Seen::default() })).await;
    }
    until("something was left out", || rig.traffic.left_out() > 0).await;
    rig.intend("web", "api", Action::Deny).await;
    api.until(|api| api.knows("intention/web/api")).await;
    let counted: u64 = rows(&rig).iter().map(|row| row.3).sum();
    until("all was taken or left out", || rows(&rig).iter().map(|row| row.3).sum::<u64>() + rig.traffic.left_out() == 12_000)
        .await;
    assert!(counted >= 5_000);
}

#[tokio::test]
async fn the_sidecars_concerned_are_asked_to_tell_all_decisions() {
    let rig = rig().await;
    let mut api = rig.sidecar("api", "api-1", &[]).await;
    let mut web = rig.sidecar("web", "web-1", &["api"]).await;
    let mut db = rig.sidecar("db", "db-1", &[]).await;
    for sidecar in [&mut api, &mut web, &mut db] {
        sidecar.settle().await;
    }
    let to_api = Filter { destination: Some("api".parse().unwrap()), ..Filter::default() };
    rig.mesh.sidecars().follow(&to_api);
    rig.mesh.sidecars().follow(&to_api);
    for sidecar in [&mut api, &mut web] {
        assert!(matches!(sidecar.next().await, Some(Down::Follow(v1::Follow { for_ms: 10_000 }))));
    }
    // Asked once: the next that comes is a change.
    rig.intend("web", "api", Action::Deny).await;
    assert!(matches!(api.next().await, Some(Down::Delta(_))));
    rig.mesh.sidecars().follow(&Filter::default());
    assert!(matches!(db.next().await, Some(Down::Follow(_))), "db was not asked before");
}
