//! What is answered to a question.

use std::collections::HashSet;
use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::Rng;
use rand::seq::SliceRandom;

use super::catalog::{Catalog, Found, Host};
use super::question::{Asked, Wanted, label_of, read};

/// Everything may change at any moment.
const TTL: u32 = 0;
/// Consul's; lower is preferred, and all are equal.
const SRV_PRIORITY: u16 = 1;
/// Names that one answer follows inside our own domains.
const LONGEST_CHAIN: usize = 8;

/// What this server says of itself.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    /// Its address, where it has one: that of `ns.<domain>`.
    pub address: Option<IpAddr>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// No error, or which.
    pub code: ResponseCode,
    /// Whether the name is ours.
    pub is_ours: bool,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// SOA, where there is nothing.
    pub authorities: Vec<Record>,
    /// What would be asked for next.
    pub additionals: Vec<Record>,
    /// A name of somebody else's that the last answer leads to.
    pub leads_to: Option<Name>,
}

impl Answer {
    fn of(code: ResponseCode, is_ours: bool) -> Self {
        Self { code, is_ours, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new(), leads_to: None }
    }

    /// Not ours to answer.
    pub fn refused() -> Self {
        Self::of(ResponseCode::Refused, false)
    }
}

/// Answers a question from the catalog, with at most `most` records. `None`: the name is somebody else's.
pub fn answer(catalog: &dyn Catalog, zone: &Zone, query: &Query, most: usize, rng: &mut impl Rng) -> Option<Answer> {
    let datacenter = catalog.datacenter();
    if query.query_class() != DNSClass::IN || is_transfer(query.query_type()) {
        return Some(Answer::refused());
    }
    match read(query.name(), &datacenter) {
        Asked::Foreign => None,
        Asked::Reverse(address) => reverse(catalog, query, address, &datacenter),
        Asked::Ours { domain, wanted } => {
            let mut scene = Scene { catalog, zone, datacenter, domain, most, rng };
            Some(scene.answer(query, &wanted))
        }
    }
}

fn is_transfer(kind: RecordType) -> bool {
    matches!(kind, RecordType::AXFR | RecordType::IXFR)
}

/// The names at an address; `None` where nothing of ours is there.
fn reverse(catalog: &dyn Catalog, query: &Query, address: IpAddr, datacenter: &str) -> Option<Answer> {
    let (nodes, services) = catalog.at(address);
    let nodes = nodes.iter().filter_map(|node| Name::from_ascii(format!("{node}.node.{datacenter}.consul.")).ok());
    let services = services.iter().filter_map(|service| Name::from_ascii(format!("{service}.service.{datacenter}.consul.")).ok());
    let names: Vec<Name> = nodes.chain(services).collect();
    if names.is_empty() {
        return None;
    }
    let mut answer = Answer::of(ResponseCode::NoError, true);
    if matches!(query.query_type(), RecordType::PTR | RecordType::ANY) {
        answer.answers = names.into_iter().map(|name| record(query.name(), RData::PTR(PTR(name)))).collect();
    }
    Some(answer)
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn address_record(name: &Name, address: IpAddr) -> Record {
    record(name, address_data(address))
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

fn fits(kind: RecordType, address: IpAddr) -> bool {
    match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    }
}

/// One question of ours, and all that its answer is made from.
struct Scene<'a, R> {
    catalog: &'a dyn Catalog,
    zone: &'a Zone,
    datacenter: String,
    domain: Name,
    most: usize,
    rng: &'a mut R,
}

impl<R: Rng> Scene<'_, R> {
    fn answer(&mut self, query: &Query, wanted: &Wanted) -> Answer {
        let mut answer = Answer::of(ResponseCode::NoError, true);
        let name = query.name();
        match wanted {
            Wanted::Nothing => answer.code = ResponseCode::NXDomain,
            Wanted::Inner => {}
            Wanted::Apex => self.apex(query.query_type(), &mut answer),
            Wanted::NameServer => {
                let ours = self.zone.address.filter(|address| fits(query.query_type(), *address));
                answer.answers.extend(ours.map(|address| address_record(name, address)));
            }
            Wanted::Address(address) => {
                let asked = Some(*address).filter(|address| fits(query.query_type(), *address));
                answer.answers.extend(asked.map(|address| address_record(name, address)));
            }
            Wanted::Node(node) => match self.catalog.node(node) {
                hosts if hosts.is_empty() => answer.code = ResponseCode::NXDomain,
                hosts => self.hosts(name, query.query_type(), hosts, &mut answer),
            },
            Wanted::Service { name: service, tag } => {
                let has_tag =
                    |found: &Found| tag.as_ref().is_none_or(|tag| found.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)));
                let found = self.catalog.service(service).into_iter().filter(has_tag).collect();
                self.instances(query, found, &mut answer);
            }
            Wanted::Query(of) => match self.catalog.query(of) {
                None => answer.code = ResponseCode::NXDomain,
                Some(queried) => {
                    self.records(query, queried.found, &mut answer);
                    for record in answer.answers.iter_mut().chain(&mut answer.additionals) {
                        record.ttl = queried.ttl;
                    }
                }
            },
            Wanted::Connect(service) => {
                let found = self.catalog.service(service).into_iter().filter(|found| found.has_sidecar).collect();
                self.instances(query, found, &mut answer);
            }
        }
        if answer.answers.is_empty() {
            answer.authorities.push(self.start_of_authority());
        }
        answer
    }

    fn apex(&self, kind: RecordType, answer: &mut Answer) {
        if matches!(kind, RecordType::SOA | RecordType::ANY) {
            answer.answers.push(self.start_of_authority());
        }
        if matches!(kind, RecordType::NS | RecordType::ANY)
            && let Some(server) = self.below("ns")
        {
            answer.answers.push(record(&self.domain, RData::NS(NS(server.clone()))));
            answer.additionals.extend(self.zone.address.map(|address| address_record(&server, address)));
        }
    }

    /// What is registered and cannot be called is a name without records; what is not registered is no name.
    fn instances(&mut self, query: &Query, mut found: Vec<Found>, answer: &mut Answer) {
        if found.is_empty() {
            answer.code = ResponseCode::NXDomain;
            return;
        }
        found.retain(|one| one.is_healthy);
        found.shuffle(self.rng);
        self.records(query, found, answer);
    }

    /// Records of instances, in their order.
    fn records(&self, query: &Query, found: Vec<Found>, answer: &mut Answer) {
        match query.query_type() {
            RecordType::SRV => self.services(query.name(), found, answer),
            kind => {
                let hosts = found.into_iter().map(|one| one.host).collect();
                self.hosts(query.name(), kind, hosts, answer);
            }
        }
    }

    fn services(&self, name: &Name, found: Vec<Found>, answer: &mut Answer) {
        let (mut seen, mut addresses) = (HashSet::new(), HashSet::new());
        for one in found {
            if answer.answers.len() >= self.most {
                break;
            }
            if !seen.insert((one.host.clone(), one.port)) {
                continue;
            }
            let target = match &one.host {
                Host::Ip(address) => self.below(&format!("{}.addr.{}", label_of(*address), self.datacenter)),
                Host::Name(host) => absolute(host),
            };
            let Some(target) = target else { continue };
            if let Host::Ip(address) = one.host
                && addresses.insert(address)
            {
                answer.additionals.push(address_record(&target, address));
            }
            answer.answers.push(record(name, RData::SRV(SRV::new(SRV_PRIORITY, one.weight, one.port, target))));
        }
    }

    /// Addresses of the type asked for. Without any, a host that is known by name leads on: a name can lead to one other
    /// name only, and to nothing else beside it (RFC 1034 §3.6.2).
    fn hosts(&self, name: &Name, kind: RecordType, hosts: Vec<Host>, answer: &mut Answer) {
        let mut seen = HashSet::new();
        let addresses = hosts.iter().filter_map(|host| if let Host::Ip(address) = host { Some(*address) } else { None });
        let addresses = addresses.filter(|address| fits(kind, *address) && seen.insert(*address)).take(self.most);
        answer.answers.extend(addresses.map(|address| address_record(name, address)));
        let has_addresses = hosts.iter().any(|host| matches!(host, Host::Ip(_)));
        if has_addresses || !matches!(kind, RecordType::A | RecordType::AAAA | RecordType::CNAME | RecordType::ANY) {
            return;
        }
        let target = hosts.iter().find_map(|host| if let Host::Name(host) = host { absolute(host) } else { None });
        let Some(target) = target else { return };
        answer.answers.push(record(name, RData::CNAME(CNAME(target.clone()))));
        if matches!(kind, RecordType::A | RecordType::AAAA) {
            answer.leads_to = Some(target);
        }
    }

    fn below(&self, labels: &str) -> Option<Name> {
        Name::from_ascii(labels).ok()?.append_domain(&self.domain).ok()
    }

    /// A negative answer may be kept for no time either.
    fn start_of_authority(&self) -> Record {
        let server = self.below("ns").unwrap_or_else(|| self.domain.clone());
        let mail = self.below("hostmaster").unwrap_or_else(|| self.domain.clone());
        // Serial numbers wrap (RFC 1982).
        let serial = u32::try_from(self.catalog.serial() & u64::from(u32::MAX)).unwrap_or_default();
        record(&self.domain, RData::SOA(SOA::new(server, mail, serial, 3600, 600, 86_400, TTL)))
    }
}

fn absolute(host: &str) -> Option<Name> {
    let mut name = Name::from_ascii(host).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Goes on to where the answer leads, as long as that is in our own domains.
pub fn follow(catalog: &dyn Catalog, zone: &Zone, query: &Query, most: usize, rng: &mut impl Rng, answer: &mut Answer) {
    for _ in 0..LONGEST_CHAIN {
        let Some(next) = answer.leads_to.clone() else { return };
        let next = Query::query(next, query.query_type());
        let Some(further) = self::answer(catalog, zone, &next, most, rng) else { return };
        if answer.answers.iter().any(|record| further.answers.contains(record)) {
            answer.leads_to = None;
            return;
        }
        answer.code = further.code;
        answer.answers.extend(further.answers);
        answer.authorities = further.authorities;
        answer.leads_to = further.leads_to;
    }
    answer.leads_to = None;
}
