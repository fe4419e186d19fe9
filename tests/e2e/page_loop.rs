//! The page at `/ui/` with a mesh at work: what was seen, why, and what is done about it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use crate::page::on_page;
use crate::support::{Mesh, Pair, Service, eventually, http_get};

/// Where pictures of the page are kept.
fn shots() -> String {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("page").display().to_string()
}

fn axe() -> String {
    let axe: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe/node_modules/axe-core/axe.min.js");
    assert!(axe.exists(), "{} is missing; tests/run makes it", axe.display());
    axe.display().to_string()
}

/// `web` calls `api` without end as long as `then` runs, which is given the last status that it got.
fn with_traffic<T>(pair: &Pair, then: impl FnOnce(&AtomicU16) -> T) -> T {
    let (is_over, last) = (AtomicBool::new(false), AtomicU16::new(0));
    let upstream = pair.upstream();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                last.store(http_get(upstream, "/v1/invoices/7").0, Ordering::SeqCst);
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        // Whatever comes of it, the traffic ends.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| then(&last)));
        is_over.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_denied_call_is_found_explained_allowed_and_rolled_back_on_the_page() {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "http_service.py"));
    pair.mesh.allow("shop", "billing");
    pair.mesh.allow("shop", "search");
    with_traffic(&pair, |last| {
        eventually("web is denied", || (last.load(Ordering::SeqCst) == 403).then_some(()));
        let told = on_page(&pair.mesh, "loop", &[&shots()]);
        eventually("web is denied again", || (last.load(Ordering::SeqCst) == 403).then_some(()));
        assert!(told["allowed"].as_u64() > told["before"].as_u64(), "{told}");
    });
    assert!(pair.service.count("/v1/invoices/7") > 0, "nothing reached the service while it was allowed");
    assert!(pair.mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len() == 2);
}

/// Does on the page what a function of `page_changes.py` does, while `web` calls `api`, a mesh with this default.
#[track_caller]
fn change_on_page(default: &str, what: &str) {
    let mesh = Mesh::start_with(&["--default", default]);
    let pair = Pair::of(mesh, "http", |mesh| Service::start(mesh, "http_service.py"));
    with_traffic(&pair, |last| {
        eventually("web is answered", || (last.load(Ordering::SeqCst) > 0).then_some(()));
        on_page(&pair.mesh, what, &[pair.upstream(), &axe()]);
    });
}

#[test]
fn what_audit_let_through_is_suggested_on_the_page_and_put_in_force() {
    change_on_page("audit", "suggest");
}

#[test]
fn a_call_is_allowed_for_an_hour_on_the_page_and_that_is_ended() {
    change_on_page("deny", "for_a_time");
}

#[test]
fn one_request_is_allowed_on_the_page_and_no_other() {
    change_on_page("deny", "one_request");
}

#[test]
fn the_default_is_changed_on_the_page_with_its_plan_and_back() {
    change_on_page("deny", "default_policy");
}

#[test]
fn what_somebody_else_changed_meanwhile_refuses_a_change_on_the_page_and_loses_nothing_typed() {
    change_on_page("deny", "conflicts");
}

#[test]
fn what_is_live_is_paused_and_filtered_on_the_page() {
    change_on_page("deny", "live");
}

#[test]
fn a_token_for_one_destination_sees_the_plans_of_its_changes_on_the_page() {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "http_service.py"));
    pair.mesh.allow("shop", "billing");
    pair.mesh.meshctl(&[
        "acl",
        "policy",
        "set",
        "api",
        "--rules",
        "service \"api\" { policy = \"write\" intentions = \"write\" }",
    ]);
    let made = pair.mesh.json(&["acl", "token", "create", "--policy", "api"]);
    with_traffic(&pair, |last| {
        eventually("web is denied", || (last.load(Ordering::SeqCst) == 403).then_some(()));
        on_page(&pair.mesh, "of_one_destination", &[pair.upstream(), made["SecretID"].as_str().unwrap()]);
    });
}

#[test]
fn no_view_has_a_serious_fault_and_none_asks_elsewhere() {
    let pair = Pair::allowed("http");
    pair.mesh.meshctl(&["intention", "audit", "mail", "api", "--wait", "0s"]);
    pair.mesh.meshctl(&["kv", "put", "app/motd", "hello"]);
    with_traffic(&pair, |last| {
        eventually("web is answered", || (last.load(Ordering::SeqCst) == 200).then_some(()));
        on_page(&pair.mesh, "faults", &[&axe(), &shots()]);
    });
}

#[test]
fn the_graph_is_used_by_keyboard_alone() {
    let pair = Pair::allowed("http");
    with_traffic(&pair, |_| on_page(&pair.mesh, "keyboard", &[]));
}
