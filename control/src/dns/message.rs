//! A message in, a message out.

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use rand::Rng;

use super::answer::{Answer, Zone, answer, follow};
use super::catalog::Catalog;

/// Bytes of a header (RFC 1035 §4.1.1); what is shorter is no message, and gets no answer.
const HEADER: usize = 12;
/// Bytes of a message over UDP without EDNS (RFC 1035 §4.2.1).
const WITHOUT_EDNS: u16 = 512;
/// Bytes of a record of an address, its name being a pointer: more of them than fit need not be made.
const SMALLEST_RECORD: usize = 16;
/// What we take over UDP, as DNS flag day 2020 says.
const OUR_PAYLOAD: u16 = 1232;

/// What comes of a request.
#[derive(Debug)]
pub enum Reply {
    /// It is no request: nothing is sent.
    Nothing,
    /// The answer.
    Send(Vec<u8>),
    /// Somebody else knows the rest.
    Ask(Box<Unfinished>),
}

/// How many bytes an answer may have.
#[derive(Debug, Clone, Copy)]
pub enum Room {
    /// Over UDP: what the client takes, at most so many.
    Udp(u16),
    /// Over TCP: what a message can have.
    Tcp,
}

/// An answer that other servers have to complete.
#[derive(Debug)]
pub struct Unfinished {
    request: Message,
    /// What is known so far, where the name was ours.
    so_far: Option<Answer>,
    room: usize,
}

/// Answers a request.
pub fn reply(request: &[u8], catalog: &dyn Catalog, zone: &Zone, room: Room, has_recursors: bool, rng: &mut impl Rng) -> Reply {
    let (Some([id_high, id_low, flags]), true) = (request.first_chunk::<3>(), request.len() >= HEADER) else {
        return Reply::Nothing;
    };
    if flags & 0x80 != 0 {
        // An answer; to answer it would begin a quarrel between two servers.
        return Reply::Nothing;
    }
    let id = u16::from_be_bytes([*id_high, *id_low]);
    let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
    let failed = |code| encode(Message::error_msg(id, op_code, code), usize::from(WITHOUT_EDNS));
    let Ok(request) = Message::from_vec(request) else { return failed(ResponseCode::FormErr) };
    if op_code != OpCode::Query {
        return failed(ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else { return failed(ResponseCode::FormErr) };
    let query = query.clone();
    let room = room.bytes(request.edns.as_ref());
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return encode(response(&request, ResponseCode::BADVERS, has_recursors), room);
    }
    let most = room / SMALLEST_RECORD + 1;
    let asks_on = has_recursors && request.metadata.recursion_desired;
    match answer(catalog, zone, &query, most, rng) {
        None if asks_on => Reply::Ask(Box::new(Unfinished { request, so_far: None, room })),
        None => Unfinished { request, so_far: Some(Answer::refused()), room }.finish(has_recursors),
        Some(mut so_far) => {
            follow(catalog, zone, &query, most, rng, &mut so_far);
            let leads_on = so_far.leads_to.is_some() && asks_on;
            let unfinished = Unfinished { request, so_far: Some(so_far), room };
            if leads_on { Reply::Ask(Box::new(unfinished)) } else { unfinished.finish(has_recursors) }
        }
    }
}

impl Room {
    fn bytes(self, edns: Option<&Edns>) -> usize {
        match self {
            Self::Tcp => usize::from(u16::MAX),
            Self::Udp(most) => {
                edns.map_or(WITHOUT_EDNS, |edns| edns.max_payload().clamp(WITHOUT_EDNS, most.max(WITHOUT_EDNS))).into()
            }
        }
    }
}

impl Unfinished {
    /// What another server is to be asked: the request as it came, or the name that the answer leads to.
    pub fn question(&self) -> Result<Vec<u8>, hickory_proto::ProtoError> {
        let Some(name) = self.leads_to() else { return self.request.to_vec() };
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), self.query().query_type()));
        message.to_vec()
    }

    fn leads_to(&self) -> Option<&Name> {
        self.so_far.as_ref()?.leads_to.as_ref()
    }

    fn query(&self) -> Query {
        self.request.queries.first().cloned().unwrap_or_default()
    }

    /// The answer with what another server said; without it, what is known here or that it failed.
    pub fn complete(mut self, said: Option<&[u8]>) -> Reply {
        let Some(so_far) = self.so_far.as_mut() else {
            return match said {
                Some(said) => self.relay(said),
                None => encode(response(&self.request, ResponseCode::ServFail, true), self.room),
            };
        };
        if let Some(said) = said.and_then(|said| Message::from_vec(said).ok()) {
            so_far.answers.extend(said.answers);
            so_far.authorities.clear();
        }
        self.finish(true)
    }

    /// As the other server put it, under the number of the request.
    fn relay(&self, said: &[u8]) -> Reply {
        let mut bytes = said.to_vec();
        if bytes.len() > self.room {
            let mut cut = response(&self.request, ResponseCode::NoError, true);
            cut.metadata.truncation = true;
            return encode(cut, self.room);
        }
        renumber(&mut bytes, self.request.metadata.id);
        if let Some(flags) = bytes.get_mut(3) {
            // Recursion is available here, whatever the other server offers.
            *flags |= 0x80;
        }
        Reply::Send(bytes)
    }

    fn finish(self, has_recursors: bool) -> Reply {
        let Some(answer) = self.so_far else {
            return encode(response(&self.request, ResponseCode::Refused, has_recursors), self.room);
        };
        let mut message = response(&self.request, answer.code, has_recursors);
        message.metadata.authoritative = answer.is_ours;
        message.answers = answer.answers;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
        encode(message, self.room)
    }
}

/// An answer to this request that holds nothing yet.
fn response(request: &Message, code: ResponseCode, has_recursors: bool) -> Message {
    let mut message = Message::error_msg(request.metadata.id, request.metadata.op_code, code);
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.recursion_available = has_recursors;
    message.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_PAYLOAD);
        message.set_edns(edns);
    }
    message
}

/// The bytes of a message, at most `room`. What would be asked for next is left out first; an answer that is not whole says so
/// (RFC 2181 §9).
fn encode(mut message: Message, room: usize) -> Reply {
    loop {
        let bytes = match message.to_vec() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "an answer cannot be written");
                let failed = Message::error_msg(message.metadata.id, message.metadata.op_code, ResponseCode::ServFail);
                return failed.to_vec().map_or(Reply::Nothing, Reply::Send);
            }
        };
        let is_whole = !is_truncated(&bytes) || message.metadata.truncation;
        if bytes.len() <= room && is_whole {
            return Reply::Send(bytes);
        }
        if !message.additionals.is_empty() {
            message.additionals.truncate(message.additionals.len() / 2);
        } else if !message.answers.is_empty() {
            message.metadata.truncation = true;
            let fitting = message.answers.len() * room / bytes.len().max(room + 1);
            message.answers.truncate(fitting.min(message.answers.len() - 1));
        } else if !message.authorities.is_empty() {
            message.metadata.truncation = true;
            message.authorities.clear();
        } else {
            return Reply::Nothing;
        }
    }
}

fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether this is the answer to that question: same number, same question.
pub fn is_answer_to(answer: &[u8], question: &[u8]) -> bool {
    let (Some((head, asked)), Some((asked_head, wanted))) = (head_of(answer), head_of(question)) else { return false };
    head.metadata.id == asked_head.metadata.id && head.metadata.message_type == MessageType::Response && asked == wanted
}

fn head_of(message: &[u8]) -> Option<(Header, Query)> {
    let mut decoder = BinDecoder::new(message);
    let head = Header::read(&mut decoder).ok()?;
    if head.counts.queries != 1 {
        return None;
    }
    Some((head, Query::read(&mut decoder).ok()?))
}

/// Gives a message another number.
pub fn renumber(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}
