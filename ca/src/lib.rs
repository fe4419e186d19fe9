//! Who is who: SPIFFE IDs, SVIDs, the authority that signs them, trust bundles, and the one verifier that both ends of
//! every connection use. No I/O, no async runtime; time comes in as a parameter.
//!
//! | module | what it holds |
//! |---|---|
//! | `spiffe_id`, `serial`, `key`, `svid`, `signature` | an identity and its key |
//! | `bundle`, `trust` | what a verifier trusts |
//! | `refusal`, `leaf`, `path`, `verifier`, `peer`, `pinned` | who is at the other end, and why not |
//! | `tls`, `tls_signatures` | the rustls configurations of the mesh |
//! | `authority`, `issue`, `brought` | who signs |
//! | `token` | what an enrolment or an operator shows |

mod authority;
mod brought;
mod bundle;
mod error;
mod issue;
mod key;
mod leaf;
mod path;
mod peer;
mod pinned;
mod refusal;
mod serial;
mod signature;
mod spiffe_id;
mod svid;
mod tls;
mod tls_signatures;
mod token;
mod trust;
mod verifier;

pub use authority::{Authority, AuthorityKeys, INTERMEDIATE_LIFETIME, ROOT_LIFETIME};
pub use bundle::TrustBundle;
pub use error::{AuthorityError, IdentityError, IssueError};
pub use issue::{Issued, MAX_CSR_BYTES, Request, ServerNames, Subject, public_key_hash_of_csr};
pub use key::PrivateKey;
pub use peer::Peer;
pub use pinned::PinnedVerifier;
pub use refusal::Refusal;
pub use rustls::pki_types::CertificateDer;
pub use serial::Serial;
pub use signature::{BadSignature, check_signature_by};
pub use spiffe_id::SpiffeId;
pub use svid::{Svid, SvidSlot, SvidSource};
pub use tls::{client_config, crypto_provider, pinned_client_config, server_config};
pub use token::{EnrolmentToken, OperatorToken, TokenError};
pub use trust::{Trust, TrustSource};
pub use verifier::{Expected, SvidVerifier};
