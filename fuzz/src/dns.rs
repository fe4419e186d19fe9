//! A DNS request, and the answer of a recursor.

use std::net::IpAddr;

use postern_control::dns::{Catalog, Found, Host, Queried, Reply, Room, Zone, reply};

/// A catalog in which every service, query, node and address exists.
struct Everything;

impl Catalog for Everything {
    fn datacenter(&self) -> String {
        "dc1".into()
    }

    fn serial(&self) -> u64 {
        1
    }

    fn service(&self, name: &str) -> Vec<Found> {
        let one = |host, is_healthy| Found { host, port: 80, tags: vec!["v1".into()], weight: 1, is_healthy, has_sidecar: true };
        let more = (0..64_u8).map(|number| one(Host::Ip(IpAddr::from([10, 0, 0, number])), number % 2 == 0));
        more.chain([one(Host::Name(name.into()), true), one(Host::Ip("fd00::1".parse().expect("an address")), true)]).collect()
    }

    fn query(&self, name: &str) -> Option<Queried> {
        Some(Queried { found: self.service(name), ttl: 5 })
    }

    fn node(&self, name: &str) -> Vec<Host> {
        vec![Host::Name(name.into())]
    }

    fn at(&self, address: IpAddr) -> (Vec<String>, Vec<String>) {
        (vec![address.to_string()], vec!["web".into()])
    }
}

/// A message over UDP. What follows the byte 0xff is taken as the answer of a recursor too.
pub fn dns_message(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0xff);
    let (Some(request), said) = (parts.next(), parts.next()) else { return };
    for has_recursors in [false, true] {
        let answer = match reply(request, &Everything, &Zone::default(), Room::Udp(1232), has_recursors, &mut rand::rng()) {
            Reply::Ask(unfinished) => {
                assert!(has_recursors, "nobody is there to be asked");
                let _ = unfinished.question();
                unfinished.complete(said)
            }
            done => done,
        };
        if let Reply::Send(answer) = answer
            && said.is_none()
        {
            assert!(answer.len() <= 1232 && answer.len() >= 12, "{}", answer.len());
            assert_eq!(answer[..2], request[..2], "it is the answer to this request");
            assert!(answer[2] & 0x80 != 0, "it says that it is an answer");
        }
    }
}
