//! The frames on the wire: a header of eight bytes (24-bit length, 32-bit stream, 8-bit kind, big-endian) and a payload.

use std::ops::Range;

use postern_names::PortName;

use super::{Reason, StreamId, Violation};

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 8;
/// The longest payload of a DATA frame that this end sends: header and payload fill one TLS record (RFC 8446 §5.1).
pub const MOST_DATA: usize = 16_384 - FRAME_HEADER;
/// The longest PROOF.
pub(crate) const MOST_PROOF: usize = 8 * 1024;
/// Bytes that the frames of the tunnel itself can need at once: a PROOF, a CHALLENGE, and a PING each way.
pub(crate) const MOST_CONTROL: usize = 4 * FRAME_HEADER + MOST_PROOF + 32 + 9 + 9;
/// Bytes that the dialler may send before its stream was accepted.
pub(crate) const EARLY_DATA: u32 = 16 * 1024;
/// The longest trace context.
pub(crate) const MOST_TRACE: usize = 255;

const OPEN: u8 = 0;
const DATA: u8 = 1;
const FIN: u8 = 2;
const RESET: u8 = 3;
const CREDIT: u8 = 4;
const PING: u8 = 5;
const CHALLENGE: u8 = 6;
pub(super) const PROOF: u8 = 7;
/// Kinds from here on are skipped, so that a later version may add some.
const SKIPPED: u8 = 128;

/// OPEN without port and trace: credit and the two lengths.
const OPEN_FIXED: usize = 6;
const MOST_OPEN: usize = OPEN_FIXED + 255 + MOST_TRACE;

/// A frame other than DATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Open { id: StreamId, credit: u32, port: PortName, trace: Option<String> },
    Fin { id: StreamId },
    Reset { id: StreamId, reason: Reason },
    Credit { id: StreamId, increment: u32 },
    Ping { is_answer: bool, opaque: [u8; 8] },
    Challenge([u8; 32]),
    Proof(Vec<u8>),
}

/// The next thing that was found in the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The header of a DATA frame of `length` bytes.
    DataBegins { id: StreamId, length: u32 },
    /// A part of its payload, never empty.
    Data { id: StreamId, range: Range<usize> },
    /// Another frame, whole.
    Frame(Frame),
}

fn header(length: usize, id: u32, kind: u8) -> [u8; FRAME_HEADER] {
    let [_, l0, l1, l2] = (length as u32).to_be_bytes();
    let [i0, i1, i2, i3] = id.to_be_bytes();
    [l0, l1, l2, i0, i1, i2, i3, kind]
}

/// The header of a DATA frame.
pub(super) fn data_header(id: StreamId, length: usize) -> [u8; FRAME_HEADER] {
    header(length, id.get(), DATA)
}

/// An upper bound for the encoded length of an OPEN.
pub(super) fn open_length(port: &PortName, trace: Option<&str>) -> usize {
    FRAME_HEADER + OPEN_FIXED + port.as_str().len() + trace.map_or(0, str::len)
}

/// Appends an OPEN. `trace` is at most [`MOST_TRACE`] bytes.
pub(super) fn encode_open(out: &mut Vec<u8>, id: StreamId, credit: u32, port: &PortName, trace: Option<&str>) {
    let (port, trace) = (port.as_str().as_bytes(), trace.unwrap_or_default().as_bytes());
    out.extend_from_slice(&header(OPEN_FIXED + port.len() + trace.len(), id.get(), OPEN));
    out.extend_from_slice(&credit.to_be_bytes());
    for text in [port, trace] {
        out.push(text.len() as u8);
        out.extend_from_slice(text);
    }
}

/// Appends `frame`; an OPEN has its own function, so that nothing is cloned for it.
pub(super) fn encode(out: &mut Vec<u8>, frame: &Frame) {
    let mut put = |id: u32, kind: u8, parts: &[&[u8]]| {
        out.extend_from_slice(&header(parts.iter().map(|part| part.len()).sum(), id, kind));
        parts.iter().for_each(|part| out.extend_from_slice(part));
    };
    match frame {
        Frame::Open { id, credit, port, trace } => encode_open(out, *id, *credit, port, trace.as_deref()),
        Frame::Fin { id } => put(id.get(), FIN, &[]),
        Frame::Reset { id, reason } => put(id.get(), RESET, &[&[reason.code()]]),
        Frame::Credit { id, increment } => put(id.get(), CREDIT, &[&increment.to_be_bytes()]),
        Frame::Ping { is_answer, opaque } => put(0, PING, &[&[u8::from(*is_answer)], opaque]),
        Frame::Challenge(nonce) => put(0, CHALLENGE, &[nonce]),
        Frame::Proof(proof) => put(0, PROOF, &[proof]),
    }
}

#[derive(Debug)]
enum Body {
    /// A header is awaited.
    None,
    Data {
        id: StreamId,
        left: usize,
    },
    Skipped {
        left: usize,
    },
    Gathered {
        kind: u8,
        id: u32,
        length: usize,
    },
}

/// Finds frames in input that may be cut anywhere. Holds at most a header and the beginning of one frame that is not DATA.
#[derive(Debug)]
pub(super) struct Decoder {
    head: [u8; FRAME_HEADER],
    head_filled: usize,
    body: Body,
    gathered: Vec<u8>,
}

impl Decoder {
    pub fn new() -> Self {
        Self { head: [0; FRAME_HEADER], head_filled: 0, body: Body::None, gathered: Vec::new() }
    }

    /// The next thing in `input` from `*at` on; `None` when all of it was used.
    pub fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Found>, Violation> {
        loop {
            match self.body {
                Body::None => {
                    let Some(head) = self.take_head(input, at) else { return Ok(None) };
                    if let Some(found) = self.begin(head)? {
                        return Ok(Some(found));
                    }
                }
                Body::Data { id, left } => {
                    let taken = left.min(input.len() - *at);
                    if taken == 0 {
                        return Ok(None);
                    }
                    self.body = if taken == left { Body::None } else { Body::Data { id, left: left - taken } };
                    *at += taken;
                    return Ok(Some(Found::Data { id, range: *at - taken..*at }));
                }
                Body::Skipped { left } => {
                    let taken = left.min(input.len() - *at);
                    *at += taken;
                    if taken < left {
                        self.body = Body::Skipped { left: left - taken };
                        return Ok(None);
                    }
                    self.body = Body::None;
                }
                Body::Gathered { kind, id, length } => {
                    let Some(frame) = self.gather(kind, id, length, input, at)? else { return Ok(None) };
                    return Ok(Some(Found::Frame(frame)));
                }
            }
        }
    }

    fn take_head(&mut self, input: &[u8], at: &mut usize) -> Option<[u8; FRAME_HEADER]> {
        if self.head_filled == 0
            && let Some(head) = input[*at..].first_chunk()
        {
            *at += FRAME_HEADER;
            return Some(*head);
        }
        let taken = (FRAME_HEADER - self.head_filled).min(input.len() - *at);
        self.head[self.head_filled..self.head_filled + taken].copy_from_slice(&input[*at..*at + taken]);
        self.head_filled += taken;
        *at += taken;
        (self.head_filled == FRAME_HEADER).then(|| {
            self.head_filled = 0;
            self.head
        })
    }

    /// Prepares for the payload. The length and the stream are checked here, before anything of it is kept.
    fn begin(&mut self, [l0, l1, l2, i0, i1, i2, i3, kind]: [u8; FRAME_HEADER]) -> Result<Option<Found>, Violation> {
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let stream = StreamId::new(id);
        let is_in_place = match kind {
            OPEN | DATA | FIN | RESET | CREDIT => stream.is_some(),
            PING | CHALLENGE | PROOF => id == 0,
            _ => true,
        };
        if !is_in_place {
            return Err(Violation::WrongStream { kind, id });
        }
        let fits = |fits: bool| if fits { Ok(()) } else { Err(Violation::Length { kind, length }) };
        let size = length as usize;
        match (kind, stream) {
            (DATA, Some(id)) if size == 0 => return Err(Violation::EmptyData(id.get())),
            (DATA, Some(id)) => {
                self.body = Body::Data { id, left: size };
                return Ok(Some(Found::DataBegins { id, length }));
            }
            (SKIPPED.., _) => {
                self.body = Body::Skipped { left: size };
                return Ok(None);
            }
            (OPEN, _) => fits((OPEN_FIXED..=MOST_OPEN).contains(&size))?,
            (FIN, _) => fits(size == 0)?,
            (RESET, _) => fits(size == 1)?,
            (CREDIT, _) => fits(size == 4)?,
            (PING, _) => fits(size == 9)?,
            (CHALLENGE, _) => fits(size == 32)?,
            (PROOF, _) => fits((1..=MOST_PROOF).contains(&size))?,
            (DATA, None) => return Err(Violation::WrongStream { kind, id }),
            _ => return Err(Violation::UnknownKind(kind)),
        }
        self.body = Body::Gathered { kind, id, length: size };
        Ok(None)
    }

    /// The frame, once all of its payload is there: read where it lies if it is in one piece.
    fn gather(&mut self, kind: u8, id: u32, length: usize, input: &[u8], at: &mut usize) -> Result<Option<Frame>, Violation> {
        let taken = (length - self.gathered.len()).min(input.len() - *at);
        let piece = &input[*at..*at + taken];
        *at += taken;
        if taken == length {
            self.body = Body::None;
            return parse(kind, id, piece).map(Some);
        }
        self.gathered.extend_from_slice(piece);
        if self.gathered.len() < length {
            return Ok(None);
        }
        self.body = Body::None;
        let payload = std::mem::take(&mut self.gathered);
        parse(kind, id, &payload).map(Some)
    }

    /// Bytes that are kept of a frame which is not whole.
    pub fn holds(&self) -> usize {
        self.gathered.capacity()
    }
}

fn parse(kind: u8, id: u32, payload: &[u8]) -> Result<Frame, Violation> {
    parse_valid(kind, id, payload).ok_or(Violation::Malformed(kind))
}

fn parse_valid(kind: u8, id: u32, payload: &[u8]) -> Option<Frame> {
    Some(match (kind, StreamId::new(id)) {
        (OPEN, Some(id)) => parse_open(id, payload)?,
        (FIN, Some(id)) => Frame::Fin { id },
        (RESET, Some(id)) => Frame::Reset { id, reason: Reason::from_code(*payload.first()?) },
        (CREDIT, Some(id)) => Frame::Credit { id, increment: u32::from_be_bytes(*payload.first_chunk()?) },
        (PING, _) => match payload.split_first()? {
            (asks @ (0 | 1), opaque) => Frame::Ping { is_answer: *asks == 1, opaque: *opaque.first_chunk()? },
            _ => return None,
        },
        (CHALLENGE, _) => Frame::Challenge(*payload.first_chunk()?),
        (PROOF, _) => Frame::Proof(payload.to_vec()),
        _ => return None,
    })
}

fn parse_open(id: StreamId, payload: &[u8]) -> Option<Frame> {
    let (credit, rest) = payload.split_first_chunk()?;
    let (port, rest) = split_text(rest)?;
    let (trace, rest) = split_text(rest)?;
    let is_printable = trace.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !rest.is_empty() || !is_printable {
        return None;
    }
    let trace = (!trace.is_empty()).then(|| trace.to_owned());
    Some(Frame::Open { id, credit: u32::from_be_bytes(*credit), port: port.parse().ok()?, trace })
}

fn split_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}
