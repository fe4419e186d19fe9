//! Enrolment tokens: made, listed, revoked.

use std::time::{Duration, SystemTime};

use postern_api::http::TokenRevoked;
use postern_ca::EnrolmentToken;
use postern_names::ServiceName;
use serde_json::json;

use super::{IdentityError, IdentityService, TRIES, audit};
use crate::policy::Author;
use crate::records::{self, TokenRecord};
use crate::store::{Compare, Op, Txn};

/// A token as it is wanted.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The service that its bearer becomes.
    pub service: ServiceName,
    /// How often it can be spent.
    pub uses: u32,
    /// How long it lasts.
    pub ttl: Duration,
    /// Who makes it.
    pub by: String,
    /// From where.
    pub from: String,
}

impl IdentityService {
    /// Makes a token. Its secret is in the answer and nowhere else: the store keeps its hash.
    ///
    /// # Errors
    /// [`IdentityError`] of the store.
    pub async fn create_token(&self, wanted: NewToken) -> Result<(EnrolmentToken, TokenRecord), IdentityError> {
        let now = SystemTime::now();
        let token = self.unused_token()?;
        let hash = token.hash();
        let record = TokenRecord {
            id: hash[..8].to_owned(),
            service: wanted.service,
            uses_left: wanted.uses,
            uses: wanted.uses,
            // Whole milliseconds, as the store keeps it.
            not_after: postern_api::convert::time(postern_api::convert::millis(now + wanted.ttl)),
            created_by: wanted.by.clone(),
            created_at: postern_api::convert::time(postern_api::convert::millis(now)),
            lineages: Vec::new(),
            revoked: false,
        };
        let author = Author { who: wanted.by, from: wanted.from };
        let details =
            json!({ "token": record.id, "service": record.service, "uses": record.uses, "ttl_s": wanted.ttl.as_secs() });
        let txn = Txn::new()
            .when(Compare::absent(records::token_key(&hash)))
            .then(Op::put(records::token_key(&hash), records::encode(&record)?))
            .then(audit(&author, "token.create", details, now).op());
        let written = self.store.txn(txn).await?;
        if !written.succeeded {
            return Err(IdentityError::Contended(format!("token {}", record.id)));
        }
        self.mirror.reached(written.revision).await;
        Ok((token, record))
    }

    /// A token whose id names no other: ids are short, for people.
    fn unused_token(&self) -> Result<EnrolmentToken, IdentityError> {
        loop {
            let token = EnrolmentToken::generate(self.authority.load().pin())?;
            let hash = token.hash();
            if self.mirror.read(|view| view.tokens.values().all(|record| record.id != hash[..8])) {
                return Ok(token);
            }
        }
    }

    /// Every token that is remembered, the newest first.
    pub fn list_tokens(&self) -> Vec<TokenRecord> {
        let mut tokens: Vec<TokenRecord> = self.mirror.read(|view| view.tokens.values().cloned().collect());
        tokens.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        tokens
    }

    /// Ends a token, and with `svids` every SVID that goes back to it.
    ///
    /// # Errors
    /// [`IdentityError::NoSuchToken`], and those of the store.
    pub async fn revoke_token(&self, id: &str, svids: bool, author: &Author) -> Result<TokenRevoked, IdentityError> {
        let hash = self.mirror.read(|view| view.tokens.iter().find(|(_, record)| record.id == id).map(|(hash, _)| hash.clone()));
        let hash = hash.ok_or_else(|| IdentityError::NoSuchToken(id.to_owned()))?;
        let mut revision = self.end_token(&hash, id, svids, author).await?;
        let mut svids_revoked = 0;
        if svids {
            let lineages = self.mirror.read(|view| {
                let of_token = view.lineages.values().filter(|lineage| lineage.token_id == id && !lineage.revoked);
                of_token.map(|lineage| lineage.lineage.clone()).collect()
            });
            let revoked = self.revoke_lineages(lineages, author).await?;
            svids_revoked = revoked.svids;
            revision = revision.max(revoked.revision);
        }
        Ok(TokenRevoked { id: id.to_owned(), svids_revoked, revision })
    }

    async fn end_token(&self, hash: &str, id: &str, svids: bool, author: &Author) -> Result<u64, IdentityError> {
        let _turn = self.line(hash).lock().await;
        let key = records::token_key(hash);
        for _ in 0..TRIES {
            let kv = self.store.get(&key).await?.ok_or_else(|| IdentityError::NoSuchToken(id.to_owned()))?;
            let mut record: TokenRecord = records::decode(&kv.key, &kv.value)?;
            record.revoked = true;
            let details = json!({ "token": id, "service": record.service, "uses_left": record.uses_left, "svids": svids });
            let txn = Txn::new()
                .when(Compare::unchanged(key.clone(), kv.mod_revision))
                .then(Op::put(key.clone(), records::encode(&record)?))
                .then(audit(author, "token.revoke", details, SystemTime::now()).op());
            let written = self.store.txn(txn).await?;
            self.mirror.reached(written.revision).await;
            if written.succeeded {
                return Ok(written.revision);
            }
        }
        Err(IdentityError::Contended(format!("token {id}")))
    }
}
