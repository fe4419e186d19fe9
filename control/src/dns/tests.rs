//! Whole messages, against a catalog in memory.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;

use super::catalog::{Catalog, Found, Host, Queried};
use super::message::{Reply, Room, reply};
use super::{Zone, message};

#[derive(Debug, Clone, Default)]
struct Fixed {
    services: Vec<(String, Found)>,
    nodes: Vec<(String, Host)>,
}

impl Catalog for Fixed {
    fn datacenter(&self) -> String {
        "dc1".into()
    }

    fn serial(&self) -> u64 {
        u64::from(u32::MAX) + 8
    }

    fn service(&self, name: &str) -> Vec<Found> {
        self.services.iter().filter(|(service, _)| service.eq_ignore_ascii_case(name)).map(|(_, found)| found.clone()).collect()
    }

    /// Any service is a query whose answers may be kept for a minute.
    fn query(&self, name: &str) -> Option<Queried> {
        let found: Vec<Found> = self.service(name.strip_prefix("find-")?);
        Some(Queried { found: found.into_iter().filter(|one| one.is_healthy).collect(), ttl: 60 })
    }

    fn node(&self, name: &str) -> Vec<Host> {
        self.nodes.iter().filter(|(node, _)| node.eq_ignore_ascii_case(name)).map(|(_, host)| host.clone()).collect()
    }

    fn at(&self, address: IpAddr) -> (Vec<String>, Vec<String>) {
        let host = Host::Ip(address);
        let nodes = self.nodes.iter().filter(|(_, at)| *at == host).map(|(node, _)| node.clone()).collect();
        let services = self.services.iter().filter(|(_, found)| found.host == host).map(|(service, _)| service.clone()).collect();
        (nodes, services)
    }
}

fn ip(text: &str) -> Host {
    Host::Ip(text.parse().unwrap())
}

fn instance(host: Host, port: u16) -> Found {
    Found { host, port, tags: Vec::new(), weight: 1, is_healthy: true, has_sidecar: true }
}

fn shop() -> Fixed {
    let web = |host, tag: &str| Found { tags: vec![tag.into()], ..instance(host, 8080) };
    Fixed {
        services: vec![
            ("web".into(), web(ip("10.0.0.1"), "v1")),
            ("web".into(), web(ip("10.0.0.2"), "v2")),
            ("web".into(), web(ip("fd00::1"), "v2")),
            ("web".into(), Found { is_healthy: false, ..web(ip("10.0.0.9"), "broken") }),
            ("down".into(), Found { is_healthy: false, ..instance(ip("10.0.0.3"), 1) }),
            ("rds".into(), instance(Host::Name("db.example.com".into()), 5432)),
            ("alias".into(), instance(Host::Name("web.service.consul".into()), 80)),
            ("loop".into(), instance(Host::Name("loop.service.consul".into()), 80)),
            ("plain".into(), Found { has_sidecar: false, ..instance(ip("10.0.0.4"), 9) }),
        ],
        nodes: vec![("host-1".into(), ip("10.0.0.1"))],
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message
}

fn sent(reply: Reply) -> Message {
    match reply {
        Reply::Send(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn asked_of(catalog: &Fixed, message: &Message, room: Room) -> Message {
    let zone = Zone { address: Some("127.0.0.1".parse().unwrap()) };
    let answer = sent(reply(&message.to_vec().unwrap(), catalog, &zone, room, false, &mut rand::rng()));
    assert_eq!((answer.metadata.id, &answer.queries), (message.metadata.id, &message.queries));
    answer
}

fn ask(name: &str, kind: RecordType) -> Message {
    asked_of(&shop(), &question(name, kind), Room::Tcp)
}

fn data(message: &Message) -> BTreeSet<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn a_prepared_query_is_answered_with_its_own_time_to_live() {
    let asked = |name: &str| {
        let query = Query::query(Name::from_ascii(name).unwrap(), RecordType::A);
        super::answer::answer(&shop(), &Zone::default(), &query, 100, &mut rand::rng()).unwrap()
    };
    let answer = asked("find-web.query.consul.");
    assert_eq!((answer.code, answer.answers.len()), (ResponseCode::NoError, 2));
    assert!(answer.answers.iter().all(|record| record.ttl == 60));
    assert_eq!(asked("web.query.consul.").code, ResponseCode::NXDomain);
    assert_eq!(asked("query.consul.").code, ResponseCode::NoError);
}

#[test]
fn a_service_is_answered_with_its_healthy_addresses_in_both_domains() {
    for name in ["web.service.consul.", "web.service.mesh.", "WEB.service.dc1.Consul.", "_web._tcp.service.consul."] {
        let answer = ask(name, RecordType::A);
        assert_eq!(data(&answer), set(&["10.0.0.1", "10.0.0.2"]), "{name}");
        assert!(answer.metadata.authoritative && answer.answers.iter().all(|record| record.ttl == 0));
        assert!(answer.answers.iter().all(|record| record.name.to_ascii() == name), "as it was asked");
        assert_eq!(data(&ask(name, RecordType::AAAA)), set(&["fd00::1"]), "{name}");
    }
}

#[test]
fn a_tag_narrows_in_both_forms() {
    for name in ["v2.web.service.consul.", "_web._v2.service.consul.", "V2.web.service.mesh."] {
        assert_eq!(data(&ask(name, RecordType::A)), set(&["10.0.0.2"]), "{name}");
    }
    assert_eq!(ask("v3.web.service.consul.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn srv_names_port_and_target_and_brings_the_address() {
    let answer = ask("_web._v1.service.consul.", RecordType::SRV);
    let RData::SRV(srv) = &answer.answers[0].data else { panic!("{answer}") };
    assert_eq!((srv.priority, srv.weight, srv.port), (1, 1, 8080));
    assert_eq!(srv.target.to_ascii(), "0a000001.addr.dc1.consul.");
    assert_eq!(answer.additionals[0].name, srv.target);
    assert_eq!(answer.additionals[0].data.to_string(), "10.0.0.1");
    assert_eq!(data(&ask("0a000001.addr.dc1.consul.", RecordType::A)), set(&["10.0.0.1"]));
    assert_eq!(ask("web.service.consul.", RecordType::SRV).answers.len(), 3);
    assert_eq!(data(&ask("rds.service.consul.", RecordType::SRV)), set(&["1 1 5432 db.example.com."]));
}

#[test]
fn what_is_down_is_a_name_without_records_and_what_is_unknown_is_no_name() {
    for (name, kind, code) in [
        ("down.service.consul.", RecordType::A, ResponseCode::NoError),
        ("web.service.consul.", RecordType::TXT, ResponseCode::NoError),
        ("service.consul.", RecordType::A, ResponseCode::NoError),
        ("dc1.consul.", RecordType::NS, ResponseCode::NoError),
        ("consul.", RecordType::A, ResponseCode::NoError),
        ("host-1.node.consul.", RecordType::AAAA, ResponseCode::NoError),
        ("broken.web.service.consul.", RecordType::A, ResponseCode::NoError),
        ("nobody.service.consul.", RecordType::A, ResponseCode::NXDomain),
        ("plain.connect.consul.", RecordType::A, ResponseCode::NXDomain),
        ("nobody.node.consul.", RecordType::A, ResponseCode::NXDomain),
        ("web.service.dc2.consul.", RecordType::A, ResponseCode::NXDomain),
        ("web.nonsense.consul.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = ask(name, kind);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name} {kind}");
        let RData::SOA(soa) = &answer.authorities[0].data else { panic!("{answer}") };
        assert_eq!((soa.minimum, answer.authorities[0].ttl), (0, 0), "nothing negative is kept");
        assert_eq!(soa.serial, 7, "it wraps");
    }
}

#[test]
fn sidecars_nodes_and_addresses_have_names() {
    assert_eq!(data(&ask("web.connect.consul.", RecordType::A)), set(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(data(&ask("host-1.node.dc1.consul.", RecordType::A)), set(&["10.0.0.1"]));
    let names = set(&["host-1.node.dc1.consul.", "web.service.dc1.consul."]);
    assert_eq!(data(&ask("1.0.0.10.in-addr.arpa.", RecordType::PTR)), names);
    assert_eq!(ask("9.9.9.9.in-addr.arpa.", RecordType::PTR).metadata.response_code, ResponseCode::Refused);
}

#[test]
fn the_domain_has_an_authority_and_a_server() {
    assert_eq!(ask("mesh.", RecordType::SOA).answers.len(), 1);
    let servers = ask("consul.", RecordType::NS);
    assert_eq!(data(&servers), set(&["ns.consul."]));
    assert_eq!(servers.additionals[0].data.to_string(), "127.0.0.1");
    assert_eq!(data(&ask("ns.consul.", RecordType::A)), set(&["127.0.0.1"]));
}

#[test]
fn a_host_that_is_a_name_leads_on_and_in_our_own_domain_to_the_end() {
    assert_eq!(data(&ask("rds.service.consul.", RecordType::A)), set(&["db.example.com."]));
    assert_eq!(data(&ask("alias.service.consul.", RecordType::A)), set(&["web.service.consul.", "10.0.0.1", "10.0.0.2"]));
    assert_eq!(ask("loop.service.consul.", RecordType::A).answers.len(), 1);
}

#[test]
fn what_is_not_ours_is_refused_or_asked_elsewhere() {
    let answer = ask("example.com.", RecordType::A);
    assert_eq!((answer.metadata.response_code, answer.metadata.recursion_available), (ResponseCode::Refused, false));
    let request = question("example.com.", RecordType::A).to_vec().unwrap();
    let Reply::Ask(unfinished) = reply(&request, &shop(), &Zone::default(), Room::Tcp, true, &mut rand::rng()) else { panic!() };
    assert_eq!(unfinished.question().unwrap(), request, "as it came");
    assert_eq!(sent(unfinished.complete(None)).metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn a_name_of_somebody_else_is_completed_by_a_recursor() {
    let request = question("rds.service.consul.", RecordType::A).to_vec().unwrap();
    let Reply::Ask(unfinished) = reply(&request, &shop(), &Zone::default(), Room::Tcp, true, &mut rand::rng()) else { panic!() };
    let asked = Message::from_vec(&unfinished.question().unwrap()).unwrap();
    assert_eq!(asked.queries[0].name().to_ascii(), "db.example.com.");
    let mut said = Message::response(asked.metadata.id, OpCode::Query);
    let address = RData::A("192.0.2.7".parse::<std::net::Ipv4Addr>().unwrap().into());
    said.add_answer(hickory_proto::rr::Record::from_rdata(asked.queries[0].name().clone(), 60, address));
    let answer = sent(unfinished.complete(Some(&said.to_vec().unwrap())));
    assert_eq!(data(&answer), set(&["db.example.com.", "192.0.2.7"]));
}

#[test]
fn requests_that_are_none_of_ours_to_answer_are_told_so() {
    let with = |change: fn(&mut Message)| {
        let mut message = question("web.service.consul.", RecordType::A);
        change(&mut message);
        let bytes = message.to_vec().unwrap();
        sent(reply(&bytes, &shop(), &Zone::default(), Room::Udp(1232), false, &mut rand::rng())).metadata.response_code
    };
    assert_eq!(with(|message| message.metadata.op_code = OpCode::Notify), ResponseCode::NotImp);
    assert_eq!(with(|message| message.queries.clear()), ResponseCode::FormErr);
    assert_eq!(with(|message| message.queries.extend(message.queries.clone())), ResponseCode::FormErr);
    assert_eq!(
        with(|message| {
            message.queries[0].set_query_class(DNSClass::CH);
        }),
        ResponseCode::Refused
    );
    assert_eq!(
        with(|message| {
            message.queries[0].set_query_type(RecordType::AXFR);
        }),
        ResponseCode::Refused
    );
    assert_eq!(
        with(|message| {
            message.set_edns(Edns::new().set_version(1).clone());
        }),
        ResponseCode::from(1, 0),
        "BADVERS"
    );
}

#[test]
fn no_answer_is_sent_to_an_answer_or_to_a_scrap() {
    let mut message = question("web.service.consul.", RecordType::A);
    message.metadata.message_type = hickory_proto::op::MessageType::Response;
    let bytes = message.to_vec().unwrap();
    for request in [&bytes[..], &bytes[..11], b""] {
        let reply = reply(request, &shop(), &Zone::default(), Room::Tcp, false, &mut rand::rng());
        assert!(matches!(reply, Reply::Nothing), "{reply:?}");
    }
    let garbage = [0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x0c];
    let answer = sent(reply(&garbage, &shop(), &Zone::default(), Room::Tcp, false, &mut rand::rng()));
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (0x1234, ResponseCode::FormErr));
}

fn crowd(count: u32) -> Fixed {
    let one = |number: u32| ("web".to_owned(), instance(Host::Ip(IpAddr::from((0x0a00_0000 + number).to_be_bytes())), 80));
    Fixed { services: (0..count).map(one).collect(), nodes: Vec::new() }
}

#[test]
fn an_answer_that_does_not_fit_is_cut_and_says_so() {
    for (kind, edns, room, whole) in [
        (RecordType::A, None, 512, false),
        (RecordType::SRV, None, 512, false),
        (RecordType::A, Some(1232), 1232, false),
        (RecordType::A, Some(65535), 1232, false),
        (RecordType::A, Some(8), 512, false),
        (RecordType::A, Some(8192), 8192, true),
    ] {
        let mut message = question("web.service.consul.", kind);
        if let Some(payload) = edns {
            message.set_edns(Edns::new().set_max_payload(payload).clone());
        }
        let allowed = if room == 8192 { 8192 } else { 1232 };
        let answer = asked_of(&crowd(300), &message, Room::Udp(allowed));
        let length = answer.to_vec().unwrap().len();
        assert!(length <= room, "{kind} {edns:?}: {length}");
        assert_eq!(answer.metadata.truncation, !whole, "{kind} {edns:?}");
        assert!(whole || length > room * 7 / 10, "what fits is there: {length}");
        assert_eq!(answer.edns.is_some(), edns.is_some());
        let whole = asked_of(&crowd(300), &message, Room::Tcp);
        assert_eq!((whole.answers.len(), whole.metadata.truncation), (300, false));
    }
    let most = asked_of(&crowd(10_000), &question("web.service.consul.", RecordType::SRV), Room::Tcp);
    assert!(most.metadata.truncation && most.answers.len() > 1000, "{}", most.answers.len());
}

#[test]
fn what_would_be_asked_next_is_left_out_before_the_answer_is_cut() {
    let message = question("web.service.consul.", RecordType::SRV);
    let answer = asked_of(&crowd(9), &message, Room::Udp(1232));
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (9, false));
    assert!(answer.additionals.len() < 9);
}

#[test]
fn answers_come_in_any_order() {
    let firsts: BTreeSet<String> = (0..200)
        .map(|_| asked_of(&crowd(3), &question("web.service.consul.", RecordType::A), Room::Tcp).answers[0].data.to_string())
        .collect();
    assert_eq!(firsts.len(), 3);
}

#[test]
fn an_answer_belongs_to_one_question() {
    let asked = question("example.com.", RecordType::A);
    let mut said = Message::response(asked.metadata.id, OpCode::Query);
    said.add_query(asked.queries[0].clone());
    let bytes = asked.to_vec().unwrap();
    assert!(message::is_answer_to(&said.to_vec().unwrap(), &bytes));
    let mut other = said.clone();
    other.metadata.id ^= 1;
    assert!(!message::is_answer_to(&other.to_vec().unwrap(), &bytes));
    let mut other = said.clone();
    other.queries[0].set_name(Name::from_ascii("example.net.").unwrap());
    assert!(!message::is_answer_to(&other.to_vec().unwrap(), &bytes));
    assert!(!message::is_answer_to(&bytes, &bytes), "a question is no answer");
}

/// The rule again, as simply as it can be said: what is asked for in the name, among what is registered.
fn expected(
    catalog: &Fixed,
    service: &str,
    tag: Option<&str>,
    connect: bool,
    kind: RecordType,
) -> (ResponseCode, BTreeSet<String>) {
    let mut is_known = false;
    let mut addresses = BTreeSet::new();
    for (name, found) in &catalog.services {
        let has_tag = tag.is_none_or(|tag| found.tags.contains(&tag.to_owned()));
        if name != service || !has_tag || (connect && !found.has_sidecar) {
            continue;
        }
        is_known = true;
        let Host::Ip(address) = found.host else { continue };
        if found.is_healthy && address.is_ipv4() == (kind == RecordType::A) {
            addresses.insert(address.to_string());
        }
    }
    (if is_known { ResponseCode::NoError } else { ResponseCode::NXDomain }, addresses)
}

prop_compose! {
    fn any_found()(number in 0_u8..6, is_v6: bool, port in 1_u16..4, tag in 0_u8..3, is_healthy: bool, has_sidecar: bool) -> Found {
        let host = if is_v6 { ip(&format!("fd00::{number}")) } else { ip(&format!("10.0.0.{number}")) };
        Found { host, port, tags: vec![format!("t{tag}")], weight: 1, is_healthy, has_sidecar }
    }
}

proptest! {
    #[test]
    fn every_service_name_is_answered_as_the_rule_says(
        services in prop::collection::vec((0_u8..3, any_found()), 0..12),
        service in 0_u8..4, tag in prop::option::of(0_u8..4), connect: bool, is_v6: bool,
    ) {
        let catalog = Fixed { services: services.into_iter().map(|(number, found)| (format!("s{number}"), found)).collect(), nodes: Vec::new() };
        let service = format!("s{service}");
        let tag = tag.filter(|_| !connect).map(|tag| format!("t{tag}"));
        let kind = if is_v6 { RecordType::AAAA } else { RecordType::A };
        let prefix = tag.as_ref().map(|tag| format!("{tag}.")).unwrap_or_default();
        let name = format!("{prefix}{service}.{}.consul.", if connect { "connect" } else { "service" });
        let answer = asked_of(&catalog, &question(&name, kind), Room::Tcp);
        let wanted = expected(&catalog, &service, tag.as_deref(), connect, kind);
        prop_assert_eq!((answer.metadata.response_code, data(&answer)), wanted);
        let distinct: BTreeSet<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        prop_assert_eq!(distinct.len(), answer.answers.len());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), has_recursors: bool) {
        let _ = reply(&bytes, &shop(), &Zone::default(), Room::Udp(1232), has_recursors, &mut rand::rng());
    }
}
