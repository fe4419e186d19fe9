//! DNS: services, nodes and addresses of the mesh by name, on UDP and TCP.
//!
//! Names are Consul's (`web.service.consul`), under `consul` and under `mesh` alike. Whoever reaches the address may ask:
//! DNS has no credentials. What is answered is always of this moment, so nothing may be cached (TTL 0).
//!
//! | module | what it holds |
//! |---|---|
//! | `catalog` | what can be found: the one place that knows how the registry records it |
//! | `question` | what a name asks for |
//! | `answer` | what is answered, without I/O |
//! | `message` | bytes in, bytes out, without I/O |
//! | `recursor` | other servers, for names that are not ours |
//! | `server`, `listener` | sockets, connections and their limits |

mod answer;
mod catalog;
mod listener;
mod message;
mod question;
mod recursor;
mod server;

pub use self::answer::Zone;
pub use self::catalog::{Catalog, Found, Host, Queried, Registered};
pub use self::listener::{DnsError, DnsListen, DnsListener, usual};
pub use self::message::{Reply, Room, reply};
pub use self::recursor::Recursor;
pub use self::server::DnsServer;

#[cfg(test)]
mod tests;
