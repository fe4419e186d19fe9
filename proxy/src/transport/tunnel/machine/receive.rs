//! What comes from the peer.

use std::ops::Range;

use super::super::busy::Way;
use super::super::frame::{Found, Frame};
use super::send::ask_for_credit;
use super::*;

impl Machine {
    /// Takes the plaintext of one record, or any part of one, and appends what happened to `events`.
    ///
    /// # Errors
    /// What the peer did that ends the tunnel. The events that were appended before it happened.
    pub fn receive(&mut self, plaintext: &[u8], now: Instant, events: &mut Vec<Event>) -> Result<(), Violation> {
        self.still_runs()?;
        self.advance(now);
        if !plaintext.is_empty() {
            self.liveness.heard(now);
        }
        let mut at = 0;
        loop {
            let outcome = match self.decoder.next(plaintext, &mut at) {
                Ok(None) => return self.still_runs(),
                Ok(Some(Found::DataBegins { id, length })) => self.check_data(id, length),
                Ok(Some(Found::Data { id, range })) => {
                    self.take_data(id, range, events);
                    Ok(())
                }
                Ok(Some(Found::Frame(frame))) => self.take_frame(frame, events),
                Err(violation) => Err(violation),
            };
            if let Err(violation) = outcome {
                self.end(violation);
                return Err(violation);
            }
        }
    }

    /// Whether the peer may send this much on this stream, judged at the header: the payload may come in pieces.
    fn check_data(&self, id: StreamId, length: u32) -> Result<(), Violation> {
        match self.streams.get(id) {
            Some(stream) => {
                self.may_come(id, stream)?;
                let credit = stream.window.granted();
                if length > credit {
                    return Err(Violation::NoCredit { id: id.get(), length, credit });
                }
            }
            None => {
                self.was_opened(id)?;
                if u64::from(length) > self.orphaned_credit {
                    return Err(Violation::NoCredit { id: id.get(), length, credit: 0 });
                }
            }
        }
        Ok(())
    }

    fn take_data(&mut self, id: StreamId, range: Range<usize>, events: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(id) else {
            self.orphaned_credit = self.orphaned_credit.saturating_sub(range.len() as u64);
            return;
        };
        stream.window.receive(range.len() as u32, self.now);
        self.busyness.count(&mut stream.moved, Way::In, range.len());
        self.unread += range.len();
        events.push(Event::Data { id, range });
    }

    fn take_frame(&mut self, frame: Frame, events: &mut Vec<Event>) -> Result<(), Violation> {
        match frame {
            Frame::Open { id, credit, port, trace } => return self.take_open(id, credit, port, trace, events),
            Frame::Fin { id } => return self.take_fin(id, events),
            Frame::Reset { id, reason } => return self.take_reset(id, reason, events),
            Frame::Credit { id, increment } => return self.take_credit(id, increment, events),
            Frame::Ping { is_answer, opaque } => return self.take_ping(is_answer, opaque),
            Frame::Challenge(nonce) => events.push(Event::Challenge(nonce)),
            Frame::Proof(proof) => events.push(Event::Proof(proof)),
        }
        Ok(())
    }

    fn take_open(
        &mut self,
        id: StreamId,
        credit: u32,
        port: PortName,
        trace: Option<String>,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        if self.role == Role::Dialler {
            return Err(Violation::WrongRole);
        }
        if id.get() <= self.highest {
            return Err(Violation::ReusedId(id.get()));
        }
        if credit > StreamId::MOST {
            return Err(Violation::CreditOverflow(id.get()));
        }
        if self.outgoing.queue.len() >= self.most_queued() {
            return Err(Violation::Backlog);
        }
        self.highest = id.get();
        let is_full = self.streams.len() >= self.limits.streams;
        let window = Window::new(EARLY_DATA, self.limits.initial_credit);
        self.streams.insert(id, Stream::new(Opening::Unanswered, window, credit));
        if is_full {
            self.refuse(id, Reason::Limit);
            return self.still_runs();
        }
        events.push(Event::Opened { id, port, trace });
        Ok(())
    }

    fn take_fin(&mut self, id: StreamId, events: &mut Vec<Event>) -> Result<(), Violation> {
        let Some(stream) = self.streams.get(id) else { return self.take_late(id) };
        self.may_come(id, stream)?;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.peer_finished = true;
        }
        events.push(Event::Finished { id });
        self.remove_if_over(id);
        Ok(())
    }

    fn take_reset(&mut self, id: StreamId, reason: Reason, events: &mut Vec<Event>) -> Result<(), Violation> {
        let Some(stream) = self.remove(id) else { return self.take_late(id) };
        events.push(Event::Reset { id, reason });
        if !stream.is_accepted() {
            self.count_refusal();
        }
        self.still_runs()
    }

    fn take_credit(&mut self, id: StreamId, increment: u32, events: &mut Vec<Event>) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(id) else { return self.take_late(id) };
        let is_acceptance = self.role == Role::Dialler && stream.opening == Opening::Unanswered;
        if increment == 0 && !is_acceptance {
            return Err(Violation::EmptyCredit(id.get()));
        }
        let had = stream.credit;
        stream.credit =
            had.checked_add(increment).filter(|credit| *credit <= StreamId::MOST).ok_or(Violation::CreditOverflow(id.get()))?;
        if is_acceptance {
            stream.opening = Opening::Done;
            self.unanswered -= 1;
            if !self.is_frozen {
                // An OPEN that was sent while frozen granted nothing.
                ask_for_credit(stream, id, &mut self.outgoing);
            }
            events.push(Event::Accepted { id });
        } else if had == 0 && stream.sending == Sending::Open && stream.is_accepted() {
            events.push(Event::Writable { id });
        }
        Ok(())
    }

    fn take_ping(&mut self, is_answer: bool, opaque: [u8; 8]) -> Result<(), Violation> {
        if !self.pings.allows(self.now) {
            return Err(Violation::PingsTooFast);
        }
        if is_answer {
            self.round_trip.answer(opaque, self.now);
        } else {
            self.outgoing.answer = Some(opaque);
            self.outgoing.queue_tunnel();
        }
        Ok(())
    }

    /// A frame, other than DATA, for a stream that is not open: it crossed the end of the stream on the way, or is made up.
    fn take_late(&mut self, id: StreamId) -> Result<(), Violation> {
        self.was_opened(id)?;
        self.late_frames = self.late_frames.checked_sub(1).ok_or(Violation::TooManyLate)?;
        Ok(())
    }

    fn was_opened(&self, id: StreamId) -> Result<(), Violation> {
        if id.get() <= self.highest { Ok(()) } else { Err(Violation::UnknownStream(id.get())) }
    }

    /// Whether DATA or FIN may come on this stream.
    fn may_come(&self, id: StreamId, stream: &Stream) -> Result<(), Violation> {
        if stream.peer_finished {
            return Err(Violation::AfterFin(id.get()));
        }
        match (self.role, stream.opening) {
            (Role::Dialler, Opening::Queued) => Err(Violation::UnknownStream(id.get())),
            (Role::Dialler, Opening::Unanswered) => Err(Violation::NotAccepted(id.get())),
            _ => Ok(()),
        }
    }
}
