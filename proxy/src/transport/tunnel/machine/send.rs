//! What goes to the peer.

use super::super::busy::Way;
use super::super::frame::Frame;
use super::*;

impl Machine {
    /// Opens a stream to `port` of the peer. A `trace` that is longer than [`MOST_TRACE`] or not printable is left out.
    ///
    /// # Errors
    /// Why no stream can be opened now.
    pub fn open(&mut self, port: &PortName, trace: Option<&str>) -> Result<StreamId, OpenError> {
        if self.role == Role::Acceptor {
            return Err(OpenError::NotDialler);
        }
        self.still_runs().map_err(OpenError::Ended)?;
        if self.streams.len() >= self.limits.streams || self.outgoing.queue.len() >= self.most_queued() {
            return Err(OpenError::Full);
        }
        if self.unanswered >= self.refusals.left(self.now) as usize {
            return Err(OpenError::TooManyUnanswered);
        }
        let id = StreamId::new(self.highest + 1).ok_or(OpenError::Exhausted)?;
        self.highest = id.get();
        self.unanswered += 1;
        self.streams.insert(id, Stream::new(Opening::Queued, Window::new(0, self.limits.initial_credit), EARLY_DATA));
        let is_sendable = |trace: &&str| trace.len() <= MOST_TRACE && trace.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        self.outgoing.queue.push_back(Queued::Open { id, port: port.clone(), trace: trace.filter(is_sendable).map(Into::into) });
        Ok(id)
    }

    /// Accepts a stream that the peer opened. It may be sent on from now.
    pub fn accept(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if self.role == Role::Acceptor && stream.opening == Opening::Unanswered {
            stream.opening = Opening::Answering;
            queue(stream, id, &mut self.outgoing);
        }
    }

    /// Refuses a stream that the peer opened.
    pub fn refuse(&mut self, id: StreamId, reason: Reason) {
        self.reset(id, reason);
    }

    /// How many bytes may be sent on the stream: in all 16 KiB before it was accepted, then what the peer grants.
    pub fn may_send(&self, id: StreamId) -> usize {
        match self.streams.get(id) {
            Some(stream) if self.is_writable(stream) => stream.credit as usize,
            _ => 0,
        }
    }

    fn is_writable(&self, stream: &Stream) -> bool {
        stream.sending == Sending::Open && (self.role == Role::Dialler || stream.is_accepted())
    }

    /// Takes the credit for `length` bytes, 1 to [`MOST_DATA`] and at most [`Machine::may_send`], and gives the header
    /// that goes before them.
    pub fn data_header(&mut self, id: StreamId, length: usize) -> [u8; FRAME_HEADER] {
        debug_assert!((1..=MOST_DATA).contains(&length) && length <= self.may_send(id));
        if let Some(stream) = self.streams.get_mut(id) {
            debug_assert!(matches!(stream.opening, Opening::Unanswered | Opening::Done), "control frames are taken first");
            stream.credit = stream.credit.saturating_sub(length as u32);
            self.busyness.count(&mut stream.moved, Way::Out, length);
        }
        frame::data_header(id, length)
    }

    /// Sends no more on the stream.
    pub fn finish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let may_finish = self.role == Role::Dialler || stream.is_accepted();
        debug_assert!(may_finish, "a stream that is not accepted is refused, not finished");
        if stream.sending == Sending::Open && may_finish {
            stream.sending = Sending::Finishing;
            if stream.opening != Opening::Queued {
                queue(stream, id, &mut self.outgoing);
            }
        }
    }

    /// Ends the stream at once, both ways. The driver drops what it holds of it; nothing more is told of it.
    pub fn reset(&mut self, id: StreamId, reason: Reason) {
        let Some(stream) = self.remove(id) else { return };
        if stream.opening == Opening::Queued {
            return;
        }
        // A peer that has sent its FIN has used its credit.
        if !stream.peer_finished {
            self.orphaned_credit += u64::from(stream.window.granted());
        }
        self.late_frames += LATE_FRAMES;
        self.outgoing.queue.push_back(Queued::Reset { id, reason });
        if !stream.is_accepted() {
            self.count_refusal();
        }
    }

    /// Counts an OPEN that was refused or reset before it was accepted.
    pub(super) fn count_refusal(&mut self) {
        match self.role {
            Role::Dialler => self.refusals.draw(),
            Role::Acceptor if self.refused.allows(self.now) => {}
            Role::Acceptor => self.end(Violation::RefusedTooFast),
        }
    }

    /// The reader took `bytes` of the stream.
    pub fn consumed(&mut self, id: StreamId, bytes: usize) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        debug_assert!(bytes <= stream.window.unread() as usize);
        self.unread -= stream.window.consume(bytes) as usize;
        if stream.peer_finished {
            return self.remove_if_over(id);
        }
        if !self.is_frozen {
            let TunnelLimits { initial_credit, most_credit, largest_credit, .. } = self.limits;
            let over = stream.window.over(most_credit);
            let room = u32::try_from(self.most_over.saturating_sub(self.over)).unwrap_or(u32::MAX);
            let most = most_credit.saturating_add(over).saturating_add(room).min(largest_credit);
            let may_be_small = stream.window.adapt(initial_credit, most, self.round_trip.last(), self.now);
            self.over = self.over - over as usize + stream.window.over(most_credit) as usize;
            ask_for_credit(stream, id, &mut self.outgoing);
            if may_be_small && self.outgoing.ask.is_none() && self.round_trip.may_ask(self.now) {
                self.ask();
            }
        }
    }

    /// While frozen, no credit is granted: streams are still accepted, without any.
    pub fn set_frozen(&mut self, is_frozen: bool) {
        let thaws = self.is_frozen && !is_frozen;
        self.is_frozen = is_frozen;
        if thaws {
            for (id, stream) in self.streams.iter_mut() {
                ask_for_credit(stream, id, &mut self.outgoing);
            }
        }
    }

    /// Asks the peer for a proof of identity, in place of a question that was not sent yet.
    pub fn challenge(&mut self, nonce: [u8; 32]) {
        self.outgoing.challenge = Some(nonce);
        self.outgoing.queue_tunnel();
    }

    /// Answers a challenge, with 1 to [`MOST_PROOF`] bytes.
    pub fn prove(&mut self, proof: Vec<u8>) {
        debug_assert!((1..=MOST_PROOF).contains(&proof.len()));
        self.outgoing.proof = Some(proof);
        self.outgoing.queue_tunnel();
    }

    /// Appends control frames that are due, whole ones and at most `most` bytes ([`MOST_CONTROL`] or more); true when it
    /// appended any, so it is called until it is false.
    pub fn take_control(&mut self, most: usize, out: &mut Vec<u8>) -> bool {
        debug_assert!(most >= MOST_CONTROL);
        let begun = out.len();
        while let Some(first) = self.outgoing.queue.front() {
            if out.len() - begun + self.most_bytes(first) > most {
                break;
            }
            match self.outgoing.pop() {
                Some(Queued::Open { id, port, trace }) => self.encode_open(id, &port, trace.as_deref(), out),
                Some(Queued::Stream(id)) => self.encode_stream(id, out),
                Some(Queued::Reset { id, reason }) => frame::encode(out, &Frame::Reset { id, reason }),
                Some(Queued::Tunnel) => self.encode_tunnel(out),
                None => {}
            }
        }
        out.len() > begun
    }

    /// Whether [`Machine::take_control`] may have something to give.
    pub fn has_control(&self) -> bool {
        !self.outgoing.queue.is_empty()
    }

    fn most_bytes(&self, queued: &Queued) -> usize {
        match queued {
            Queued::Open { port, trace, .. } => frame::open_length(port, trace.as_deref()),
            Queued::Stream(_) => 2 * FRAME_HEADER + 4,
            Queued::Reset { .. } => FRAME_HEADER + 1,
            Queued::Tunnel => MOST_CONTROL - MOST_PROOF + self.outgoing.proof.as_ref().map_or(0, Vec::len),
        }
    }

    fn encode_open(&mut self, id: StreamId, port: &PortName, trace: Option<&str>, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.opening = Opening::Unanswered;
        let credit = if self.is_frozen { 0 } else { stream.window.grant() };
        frame::encode_open(out, id, credit, port, trace);
        if stream.sending == Sending::Finishing {
            queue(stream, id, &mut self.outgoing);
        }
    }

    fn encode_stream(&mut self, id: StreamId, out: &mut Vec<u8>) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.queued = false;
        let accepts = stream.opening == Opening::Answering;
        let may_grant = !self.is_frozen && !stream.peer_finished && (accepts || stream.credit_due);
        let increment = if may_grant { stream.window.grant() } else { 0 };
        stream.credit_due = false;
        if accepts {
            stream.opening = Opening::Done;
        }
        if accepts || increment > 0 {
            frame::encode(out, &Frame::Credit { id, increment });
        }
        if stream.sending == Sending::Finishing {
            stream.sending = Sending::Finished;
            frame::encode(out, &Frame::Fin { id });
            self.remove_if_over(id);
        }
    }

    fn encode_tunnel(&mut self, out: &mut Vec<u8>) {
        let Outgoing { proof, challenge, answer, ask, .. } = &mut self.outgoing;
        if let Some(opaque) = *ask {
            self.round_trip.ask(opaque, self.now);
        }
        let ping = |is_answer| move |opaque| Frame::Ping { is_answer, opaque };
        let frames = [
            proof.take().map(Frame::Proof),
            challenge.take().map(Frame::Challenge),
            answer.take().map(ping(true)),
            ask.take().map(ping(false)),
        ];
        frames.iter().flatten().for_each(|frame| frame::encode(out, frame));
    }
}

/// Puts the stream into the control queue, once.
fn queue(stream: &mut Stream, id: StreamId, outgoing: &mut Outgoing) {
    if !stream.queued {
        stream.queued = true;
        outgoing.queue.push_back(Queued::Stream(id));
    }
}

/// Lets the stream tell the peer of more credit, if there is enough to be worth it.
pub(super) fn ask_for_credit(stream: &mut Stream, id: StreamId, outgoing: &mut Outgoing) {
    if stream.opening == Opening::Done && !stream.peer_finished && stream.window.is_worth_a_frame() {
        stream.credit_due = true;
        queue(stream, id, outgoing);
    }
}
