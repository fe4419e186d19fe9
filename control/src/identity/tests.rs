use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_api::convert;
use postern_ca::{Expected, Peer, PinnedVerifier, PrivateKey, Svid, SvidVerifier};

use super::enrolment::{Granted, NotGranted, TokenFault, Wanted};
use super::*;
use crate::audit;
use crate::records::{self, ClusterRecord};
use crate::store::{MemoryStore, Op, Txn};

struct House {
    store: Arc<dyn Store>,
    seal: Arc<SealKey>,
    service: Arc<IdentityService>,
}

fn cluster() -> ClusterRecord {
    ClusterRecord {
        cluster_id: "c".into(),
        trust_domain: "example.com".parse().unwrap(),
        datacenter: "dc1".parse().unwrap(),
        epoch: 1,
        created_at: SystemTime::now(),
    }
}

fn author() -> Author {
    Author { who: "uid:0".into(), from: "unix".into() }
}

async fn new_store() -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let record = records::encode(&cluster()).unwrap();
    store.txn(Txn::new().then(Op::put(records::cluster_key(), record))).await.unwrap();
    store
}

async fn start(
    store: &Arc<dyn Store>,
    seal: &Arc<SealKey>,
    settings: IdentitySettings,
) -> Result<Arc<IdentityService>, IdentityError> {
    let mirror = Mirror::start(Arc::clone(store)).await.unwrap();
    IdentityService::new(Arc::clone(store), mirror, Arc::clone(seal), settings).await
}

impl House {
    async fn new() -> Self {
        Self::with(IdentitySettings::default()).await
    }

    async fn with(settings: IdentitySettings) -> Self {
        let (store, seal) = (new_store().await, Arc::new(SealKey::in_memory()));
        let service = start(&store, &seal, settings).await.unwrap();
        Self { store, seal, service }
    }

    async fn token(&self, service: &str, uses: u32) -> String {
        let wanted = NewToken {
            service: service.parse().unwrap(),
            uses,
            ttl: Duration::from_secs(900),
            by: "uid:0".into(),
            from: "unix".into(),
        };
        self.service.create_token(wanted).await.unwrap().0.reveal()
    }

    async fn enroll(&self, token: &str, key: &PrivateKey) -> Result<Granted, NotGranted> {
        self.service.enroll(token, &wanted(key, "web-1"), SystemTime::now()).await
    }

    /// An enrolled SVID of `web`, as its verified peer.
    async fn enrolled(&self) -> Peer {
        let token = self.token("web", 1).await;
        self.peer(&self.enroll(&token, &key()).await.unwrap())
    }

    fn peer(&self, granted: &Granted) -> Peer {
        Peer::of(&granted.chain, &self.service.trust().load()).unwrap()
    }

    async fn renew(&self, peer: &Peer, key: &PrivateKey) -> Result<Granted, NotGranted> {
        self.service.renew(peer, &wanted(key, "web-1"), SystemTime::now()).await
    }

    /// What the audit log will say, in order.
    async fn audited(&self) -> Vec<audit::AuditEntry> {
        let range = self.store.range(audit::PREFIX.as_bytes(), 0).await.unwrap();
        range.kvs.iter().map(|kv| serde_json::from_slice(&kv.value).unwrap()).collect()
    }

    async fn reasons(&self) -> Vec<String> {
        let refused = self.audited().await.into_iter().filter(|entry| entry.what == "token.refused");
        refused.map(|entry| entry.details["because"].as_str().unwrap().to_owned()).collect()
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

fn wanted(key: &PrivateKey, instance: &str) -> Wanted {
    wanted_from(key, instance, "192.0.2.1:1000")
}

fn wanted_from(key: &PrivateKey, instance: &str, address: &str) -> Wanted {
    Wanted { csr: key.csr_der(), instance: instance.parse().unwrap(), ports: vec![], address: address.parse().unwrap() }
}

fn fault(result: Result<Granted, NotGranted>) -> TokenFault {
    match result {
        Err(NotGranted::Token(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

fn refused(result: Result<Granted, NotGranted>) -> String {
    match result {
        Err(NotGranted::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_buys_an_svid_of_its_service_once() {
    let house = House::new().await;
    let token = house.token("web", 1).await;
    let mine = key();
    let granted = house.enroll(&token, &mine).await.unwrap();
    let svid = Svid::new(granted.chain.clone(), mine).unwrap();
    assert_eq!(svid.id().as_str(), "spiffe://example.com/ns/default/dc/dc1/svc/web");
    assert_eq!(fault(house.enroll(&token, &key()).await), TokenFault::Spent);
    assert_eq!(house.reasons().await, ["spent"]);
    let counts = house.service.counts();
    assert_eq!((counts.issued, counts.refused_enrolments, counts.replayed_tokens), (1, 1, 1));
    let whats: Vec<_> = house.audited().await.into_iter().map(|entry| entry.what).collect();
    assert_eq!(whats, ["authority.create", "token.create", "svid.issue", "token.refused"]);
}

#[tokio::test]
async fn the_same_key_asking_again_gets_the_same_certificate() {
    let house = House::new().await;
    let (token, mine) = (house.token("web", 1).await, key());
    let first = house.enroll(&token, &mine).await.unwrap();
    assert_eq!(house.enroll(&token, &mine).await.unwrap(), first);
    let other_instance = house.service.enroll(&token, &wanted(&mine, "web-2"), SystemTime::now()).await;
    assert_eq!(fault(other_instance), TokenFault::Spent);
    assert_eq!(house.service.counts().issued, 1);
}

#[tokio::test]
async fn wrong_spent_expired_and_revoked_tokens_get_one_answer() {
    let house = House::new().await;
    let spent = house.token("web", 1).await;
    house.enroll(&spent, &key()).await.unwrap();
    let expired = house.token("web", 1).await;
    let revoked = house.token("web", 1).await;
    let id = &revoked.parse::<postern_ca::EnrolmentToken>().unwrap().hash()[..8];
    house.service.revoke_token(id, false, &author()).await.unwrap();
    let unknown = postern_ca::EnrolmentToken::generate([0; 32]).unwrap().reveal();
    let later = SystemTime::now() + Duration::from_secs(901);
    let mut answers = vec![];
    for (token, at) in [(&*spent, None), (&*revoked, None), (&*unknown, None), ("x", None), (&*expired, Some(later))] {
        let result = house.service.enroll(token, &wanted(&key(), "web-1"), at.unwrap_or_else(SystemTime::now)).await;
        answers.push(result.unwrap_err().to_string());
    }
    answers.dedup();
    assert_eq!(answers, ["the token is wrong, spent or expired"]);
    assert_eq!(house.reasons().await, ["spent", "revoked", "unknown", "malformed", "expired"]);
    let log = serde_json::to_string(&house.audited().await).unwrap();
    assert!(!log.contains(&spent) && !log.contains(&spent[spent.len() - 43..]), "no secret in the log");
}

#[tokio::test]
async fn ten_failed_tries_a_minute_are_all_that_an_address_has() {
    let house = House::new().await;
    let token = house.token("web", 1).await;
    for _ in 0..10 {
        assert_eq!(fault(house.enroll("wrong", &key()).await), TokenFault::Malformed);
    }
    assert!(matches!(house.enroll(&token, &key()).await, Err(NotGranted::TooManyTries)));
    let elsewhere = wanted_from(&key(), "web-1", "192.0.2.2:1");
    assert!(house.service.enroll(&token, &elsewhere, SystemTime::now()).await.is_ok());
}

#[tokio::test]
async fn a_request_that_is_not_valid_burns_nothing() {
    let house = House::new().await;
    let token = house.token("web", 1).await;
    let broken = Wanted { csr: b"nothing".to_vec(), ..wanted(&key(), "web-1") };
    assert!(matches!(house.service.enroll(&token, &broken, SystemTime::now()).await, Err(NotGranted::Invalid(_))));
    assert!(house.enroll(&token, &key()).await.is_ok());
}

#[tokio::test]
async fn a_token_of_many_uses_serves_many_at_once_and_not_one_more() {
    let house = House::new().await;
    let token = house.token("web", 20).await;
    let enrolments = (0..25).map(|number| {
        let (service, token) = (Arc::clone(&house.service), token.clone());
        tokio::spawn(async move {
            let wanted = wanted_from(&key(), &format!("web-{number}"), &format!("192.0.2.{number}:1"));
            service.enroll(&token, &wanted, SystemTime::now()).await.is_ok()
        })
    });
    let mut good = 0;
    for enrolment in enrolments.collect::<Vec<_>>() {
        good += usize::from(enrolment.await.unwrap());
    }
    assert_eq!(good, 20);
    assert_eq!(house.service.list_tokens()[0].uses_left, 0);
}

#[tokio::test]
async fn a_renewal_keeps_the_identity_and_the_lineage() {
    let house = House::new().await;
    let mut peer = house.enrolled().await;
    let lineage = house.service.mirror.read(|view| view.lineage_of(&peer.serial).unwrap().lineage.clone());
    for _ in 0..3 {
        let granted = house.renew(&peer, &key()).await.unwrap();
        assert_eq!(granted.lineage, lineage);
        let renewed = house.peer(&granted);
        assert_eq!(renewed.service, peer.service);
        assert_ne!(renewed.serial, peer.serial);
        peer = renewed;
    }
    let newest = house.service.mirror.read(|view| view.lineages[&lineage].newest);
    assert_eq!(newest, peer.serial);
}

#[tokio::test]
async fn the_same_key_renewing_again_gets_the_same_certificate() {
    let house = House::new().await;
    let (peer, next) = (house.enrolled().await, key());
    let first = house.renew(&peer, &next).await.unwrap();
    assert_eq!(house.renew(&peer, &next).await.unwrap(), first);
}

#[tokio::test]
async fn an_instance_renews_only_its_own() {
    let house = House::new().await;
    let peer = house.enrolled().await;
    let other = house.service.renew(&peer, &wanted(&key(), "web-2"), SystemTime::now()).await;
    assert!(refused(other).contains("web-1"));
    let elsewhere = House::new().await;
    assert!(refused(elsewhere.renew(&peer, &key()).await).contains("not known here"));
}

#[tokio::test]
async fn an_expired_svid_renews_within_the_grace_if_it_is_the_newest() {
    let house = House::new().await;
    let peer = house.enrolled().await;
    let at = |after: u64| peer.not_after + Duration::from_secs(after);
    let too_late = house.service.renew(&peer, &wanted(&key(), "web-1"), at(72 * 3600 + 1)).await;
    assert!(refused(too_late).contains("too long ago"));
    let (next, in_time) = (key(), at(3600));
    house.service.renew(&peer, &wanted(&next, "web-1"), in_time).await.unwrap();
    assert!(house.service.renew(&peer, &wanted(&next, "web-1"), in_time).await.is_ok(), "a lost answer");
    let replaced = house.service.renew(&peer, &wanted(&key(), "web-1"), in_time).await;
    assert!(refused(replaced).contains("was replaced"));
}

#[tokio::test]
async fn a_copied_state_directory_shows_itself() {
    let house = House::new().await;
    let peer = house.enrolled().await;
    // The thief renews first and connects.
    let stolen = house.peer(&house.renew(&peer, &key()).await.unwrap());
    house.service.mark_used(&stolen.serial).await.unwrap();
    assert!(refused(house.renew(&peer, &key()).await).contains("was the state directory copied?"));
    assert!(refused(house.renew(&peer, &key()).await).contains("copied"));
    let forks: Vec<_> = house.audited().await.into_iter().filter(|entry| entry.what == "forked").collect();
    assert_eq!(forks.len(), 1);
    assert!(house.service.mirror.read(|view| view.lineage_of(&peer.serial).unwrap().forked));
    assert_eq!(house.service.counts().forks, 2);
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_with_its_key_is_no_fork() {
    let house = House::new().await;
    let peer = house.enrolled().await;
    house.renew(&peer, &key()).await.unwrap();
    assert!(house.renew(&peer, &key()).await.is_ok());
}

#[tokio::test]
async fn a_revoked_instance_is_out_with_every_unexpired_svid() {
    let house = House::new().await;
    let first = house.enrolled().await;
    let second = house.peer(&house.renew(&first, &key()).await.unwrap());
    let bystander = {
        let token = house.token("web", 1).await;
        house.peer(&house.service.enroll(&token, &wanted(&key(), "web-9"), SystemTime::now()).await.unwrap())
    };
    house.service.revoke_instance(&"web-1".parse().unwrap(), &author()).await.unwrap();
    let trust = house.service.trust().load_full();
    for peer in [&first, &second] {
        assert!(trust.revoked.contains(&peer.serial));
        assert_eq!(peer.still_trusted(&trust, SystemTime::now()).unwrap_err().word(), "revoked");
        assert!(refused(house.renew(peer, &key()).await).contains("revoked"));
    }
    assert!(bystander.still_trusted(&trust, SystemTime::now()).is_ok());
}

#[tokio::test]
async fn a_token_takes_its_svids_along() {
    let house = House::new().await;
    let token = house.token("web", 3).await;
    let mut peers = vec![];
    for number in 0..2 {
        let wanted = wanted(&key(), &format!("web-{number}"));
        peers.push(house.peer(&house.service.enroll(&token, &wanted, SystemTime::now()).await.unwrap()));
    }
    let id = house.service.list_tokens()[0].id.clone();
    let answer = house.service.revoke_token(&id, true, &author()).await.unwrap();
    assert_eq!(answer.svids_revoked, 2);
    assert!(peers.iter().all(|peer| house.service.trust().load().revoked.contains(&peer.serial)));
    assert_eq!(fault(house.enroll(&token, &key()).await), TokenFault::Revoked);
    assert!(matches!(house.service.revoke_token("nothing", true, &author()).await, Err(IdentityError::NoSuchToken(_))));
}

#[tokio::test]
async fn a_restart_has_the_same_authority_and_another_seal_key_none() {
    let house = House::new().await;
    let peer = house.enrolled().await;
    assert!(has_sealed_keys(house.store.as_ref()).await.unwrap());
    let again = start(&house.store, &house.seal, IdentitySettings::default()).await.unwrap();
    assert_eq!(again.bundle(), house.service.bundle());
    assert!(again.renew(&peer, &wanted(&key(), "web-1"), SystemTime::now()).await.is_ok());
    let stranger = Arc::new(SealKey::in_memory());
    let refused = start(&house.store, &stranger, IdentitySettings::default()).await;
    assert!(matches!(refused.err(), Some(IdentityError::Sealed(_))));
    let raw = house.store.get(b"authority/keys").await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&raw.value).contains("signing_key"), "sealed, not plain");
}

#[tokio::test]
async fn a_ca_that_was_brought_is_needed_at_every_start_and_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key_file) = (directory.path().join("ca.pem"), directory.path().join("ca.key"));
    let authority = postern_ca::Authority::create(&cluster().trust_domain, &cluster().datacenter, SystemTime::now()).unwrap();
    std::fs::write(&cert, authority.bundle().to_pem()).unwrap();
    let der = authority.export().signing_key.unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", data_encoding::BASE64.encode(&der));
    std::fs::write(&key_file, pem).unwrap();
    let brought =
        || IdentitySettings { ca: Some(BroughtCa { certificates: cert.clone(), key: key_file.clone() }), ..Default::default() };
    let (store, seal) = (new_store().await, Arc::new(SealKey::in_memory()));
    let service = start(&store, &seal, brought()).await.unwrap();
    assert_eq!(service.bundle().roots(), authority.bundle().roots());
    assert_eq!(service.authority_status().roots[0].origin, "brought");
    assert!(start(&store, &seal, brought()).await.is_ok());
    let without = start(&store, &seal, IdentitySettings::default()).await;
    assert!(matches!(without.err(), Some(IdentityError::CaMissing)));
    let built_in = House::new().await;
    let unexpected = start(&built_in.store, &built_in.seal, brought()).await;
    assert!(matches!(unexpected.err(), Some(IdentityError::CaNotExpected)));
}

#[tokio::test]
async fn the_control_plane_shows_a_chain_that_a_token_pins() {
    let house = House::new().await;
    let token: postern_ca::EnrolmentToken = house.token("web", 1).await.parse().unwrap();
    let svid = house.service.svid().load().unwrap();
    assert_eq!(svid.chain().len(), 3);
    let verifier = PinnedVerifier::new(token.pin);
    assert!(verifier.verify(&svid.chain()[0], &svid.chain()[1..], SystemTime::now()).is_ok());
    let later = SvidVerifier::new(house.service.trust(), Expected::ControlPlane);
    assert!(later.verify(&svid.chain()[0], &svid.chain()[1..], SystemTime::now()).is_ok());
}

#[tokio::test]
async fn the_intermediate_is_renewed_at_half_life_and_outlives_a_restart() {
    let house = House::new().await;
    let peer = house.enrolled().await;
    let (before, own) = (house.service.authority.load().intermediate().clone(), *house.service.svid().load().unwrap().serial());
    for _ in 0..2 {
        let at = house.service.authority.load().intermediate_half_life();
        house.service.renew_intermediate_if_due(at - Duration::from_secs(1)).await.unwrap();
        house.service.renew_intermediate_if_due(at).await.unwrap();
    }
    let after = house.service.authority.load().intermediate().clone();
    assert_ne!(before, after);
    assert_ne!(own, *house.service.svid().load().unwrap().serial(), "the own SVID follows");
    assert!(peer.still_trusted(&house.service.trust().load(), SystemTime::now()).is_ok());
    let again = start(&house.store, &house.seal, IdentitySettings::default()).await.unwrap();
    assert_eq!(*again.authority.load().intermediate(), after);
}

#[tokio::test]
async fn what_has_ended_is_removed_after_its_time() {
    let house = House::new().await;
    let peer = house.enrolled().await;
    let now = SystemTime::now();
    assert_eq!(house.service.remove_what_has_ended(now + Duration::from_secs(24 * 3600)).await.unwrap(), 0);
    assert_eq!(house.service.remove_what_has_ended(now + Duration::from_secs(25 * 3600)).await.unwrap(), 1, "the token");
    let end = convert::time(convert::millis(peer.not_after)) + Duration::from_secs(72 * 3600 + 1);
    house.service.mirror.reached(house.store.revision()).await;
    assert_eq!(house.service.remove_what_has_ended(end).await.unwrap(), 2, "the SVID and its lineage");
    assert!(refused(house.renew(&peer, &key()).await).contains("not known here"));
}

#[tokio::test]
async fn the_upkeep_renews_the_own_svid_in_time() {
    let house = House::with(IdentitySettings { svid_ttl: Duration::from_secs(2), ..Default::default() }).await;
    let first = *house.service.svid().load().unwrap().serial();
    let renewed = async {
        while *house.service.svid().load().unwrap().serial() == first {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), renewed).await.unwrap();
    house.service.shut_down().await;
}

#[tokio::test]
async fn the_certificate_of_the_api_is_renewed_at_half_of_its_life() {
    use crate::http::certificate::{CertificateSlot, Reachable};

    let house = House::new().await;
    let slot = Arc::new(CertificateSlot::default());
    let address = "0.0.0.0:8500".parse().unwrap();
    house.service.certify(Reachable::new("host", &address, "0.0.0.0".parse().unwrap()), Arc::clone(&slot)).unwrap();
    let first = slot.load().unwrap();
    let ttl = house.service.settings.svid_ttl;
    let in_time = |part: u32| SystemTime::now() + ttl * part / 8;

    house.service.renew_server_certificate_if_due(in_time(3)).unwrap();
    assert!(Arc::ptr_eq(&first, &slot.load().unwrap()), "it is not due");
    house.service.renew_server_certificate_if_due(in_time(5)).unwrap();
    let second = slot.load().unwrap();
    assert_ne!(first.cert[0], second.cert[0]);
    house.service.renew_server_certificate_if_due(in_time(6)).unwrap();
    assert!(Arc::ptr_eq(&second, &slot.load().unwrap()), "the new one lasts");
}
