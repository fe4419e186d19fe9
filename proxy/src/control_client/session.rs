//! One stream, from the hello to its end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use postern_api::convert::{millis, time};
use postern_api::v1::{self, control_message, mesh_client::MeshClient, sidecar_message};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::configuration::{ConfigurationLane, is_pushed_by};
use super::dial::{ControlConnection, origin};
use super::health::Health;
use super::seen::Telling;
use super::{Backoff, ControlClient, DeltaRefused, Ended, Lane, Published, leaving};
use crate::snapshot::Positions;
use crate::status::Stage;

/// Messages that wait to be sent: more means that the control plane does not read.
pub(super) const OUTGOING: usize = 32;
/// The longest message that is read: a chunk of 256 KiB with room to spare.
const LONGEST: usize = 1 << 20;
/// Until the welcome tells better.
const SILENCE: Duration = Duration::from_secs(25);
const BEAT: Duration = Duration::from_secs(5);

/// What one stream needs beside the client that it belongs to.
pub(super) struct Session {
    connection: ControlConnection,
    pub(super) outgoing: mpsc::Sender<v1::SidecarMessage>,
    acknowledgements: FuturesUnordered<BoxFuture<'static, Option<v1::Ack>>>,
    welcomed: bool,
    /// Since the goodbye: how long the answer to it is waited for.
    answer_until: Option<Instant>,
    /// What the control plane was told last of the service's health.
    told: Health,
    silence: Duration,
    beats: Interval,
    configuration: ConfigurationLane,
    /// The control plane answers what is asked for there.
    is_configured: bool,
    /// When it is told of the calls that were seen.
    pub(super) telling: Telling,
}

impl Session {
    pub(super) fn send(&self, message: sidecar_message::Message) -> Result<(), Ended> {
        let message = v1::SidecarMessage { message: Some(message) };
        self.outgoing.try_send(message).map_err(|_| Ended::Lost("the control plane does not read".into()))
    }
}

impl ControlClient {
    /// Opens a stream and serves it to its end.
    pub(super) async fn session(&mut self, backoff: &mut Backoff) -> Ended {
        let (mut session, mut incoming) = match self.open().await {
            Ok(opened) => opened,
            Err(ended) => return ended,
        };
        let Err(ended) = self.serve(&mut session, &mut incoming, backoff).await;
        match ended {
            // Whoever has said goodbye does not come back, however the stream ended.
            Ended::Lost(why) | Ended::Refused(why) | Ended::Busy(_, why) if session.answer_until.is_some() => {
                tracing::debug!(why, "the stream ended after the goodbye");
                Ended::Goodbye
            }
            ended => ended,
        }
    }

    async fn open(&mut self) -> Result<(Session, Streaming<v1::ControlMessage>), Ended> {
        let mut goodbye = self.goodbye.clone();
        tokio::select! {
            biased;
            _ = leaving(&mut goodbye) => Err(Ended::Goodbye),
            opened = self.connect() => opened,
        }
    }

    async fn connect(&mut self) -> Result<(Session, Streaming<v1::ControlMessage>), Ended> {
        let connection = self.dialler.dial(&self.tls).await.map_err(|error| Ended::Lost(error.to_string()))?;
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let told = self.health.borrow_and_update().clone();
        let hello = self.hello(connection.local, told.clone()).await;
        let session = Session {
            outgoing,
            acknowledgements: FuturesUnordered::new(),
            welcomed: false,
            answer_until: None,
            told,
            silence: SILENCE,
            beats: beats(BEAT),
            configuration: ConfigurationLane::default(),
            is_configured: false,
            telling: Telling::default(),
            connection,
        };
        session.send(sidecar_message::Message::Hello(hello))?;
        let mut client = MeshClient::with_origin(session.connection.channel.clone(), origin()).max_decoding_message_size(LONGEST);
        let answered = timeout(self.periods.call, client.connect(ReceiverStream::new(messages))).await;
        match answered {
            Ok(Ok(answer)) => Ok((session, answer.into_inner())),
            Ok(Err(status)) => {
                self.dialler.prefer_another();
                Err(Ended::Lost(format!("{}: {}", session.connection.address, said(&status))))
            }
            Err(_) => {
                self.dialler.prefer_another();
                Err(Ended::Lost(format!("{}: no answer in time", session.connection.address)))
            }
        }
    }

    async fn hello(&self, local: std::net::SocketAddr, health: Health) -> v1::Hello {
        let positions = self.publisher.resources().positions();
        v1::Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_id: self.publisher.resources().cluster_id().into(),
            authority: Some(positions.authority.into()),
            reachability: Some(positions.reachability.into()),
            registration: Some(self.instance.registration(local, health, self.warnings.clone()).await),
            upstreams: self.instance.upstreams.iter().map(ToString::to_string).collect(),
            understands: postern_api::understanding::ALL.iter().map(ToString::to_string).collect(),
        }
    }

    async fn serve(
        &mut self,
        session: &mut Session,
        incoming: &mut Streaming<v1::ControlMessage>,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut heard = Instant::now();
        let drained = self.drained.clone();
        loop {
            let is_leaving = session.answer_until.is_some();
            let awaits_answer = is_leaving && !*self.left.borrow();
            tokio::select! {
                biased;
                reason = leaving(&mut self.goodbye), if !is_leaving => self.say_goodbye(session, reason)?,
                () = drained.cancelled(), if is_leaving => return Err(self.hang_up(session, incoming).await),
                message = incoming.message() => {
                    heard = Instant::now();
                    match message {
                        Ok(Some(v1::ControlMessage { message: Some(message) })) => self.take(session, message, backoff)?,
                        Ok(Some(_)) => {}
                        Ok(None) => return Err(Ended::Lost("the control plane ended the stream".into())),
                        Err(status) => return Err(Ended::Lost(said(&status))),
                    }
                }
                Some(acknowledgement) = session.acknowledgements.next() => {
                    if let Some(ack) = acknowledgement {
                        let ack = self.with_cut(ack);
                        session.send(sidecar_message::Message::Ack(ack))?;
                    }
                }
                Ok(()) = self.health.changed(), if !is_leaving => {
                    let health = self.health.borrow_and_update().clone();
                    self.tell_health(session, health).await?;
                }
                () = self.configuration.changed(), if session.is_configured => self.ask(session)?,
                _ = session.beats.tick() => self.beat(session)?,
                due = session.telling.due(self.reports.sightings()) => self.tell_seen(session, due)?,
                () = sleep_until(session.answer_until.unwrap_or(heard)), if awaits_answer => {
                    tracing::debug!("the control plane did not answer the goodbye");
                    self.left.send_replace(true);
                }
                () = sleep_until(heard + session.silence) => {
                    return Err(Ended::Lost(format!("the control plane was silent for {:?}", session.silence)));
                }
            }
        }
    }

    fn take(&mut self, session: &mut Session, message: control_message::Message, backoff: &mut Backoff) -> Result<(), Ended> {
        match message {
            control_message::Message::Welcome(welcome) => self.take_welcome(session, welcome, backoff),
            control_message::Message::Heartbeat(heartbeat) => {
                self.take_time(heartbeat.server_time_ms);
                Ok(())
            }
            control_message::Message::Refusal(refusal) => Err(self.refused(refusal)),
            control_message::Message::Left(_) => {
                self.left.send_replace(true);
                Ok(())
            }
            control_message::Message::Follow(follow) => {
                self.follow(session, Duration::from_millis(follow.for_ms.into()));
                Ok(())
            }
            control_message::Message::Delta(_) if !session.welcomed => Err(Ended::Lost("a delta came before the welcome".into())),
            control_message::Message::Delta(delta) => self.take_delta(session, delta),
        }
    }

    fn take_welcome(&mut self, session: &mut Session, welcome: v1::Welcome, backoff: &mut Backoff) -> Result<(), Ended> {
        if !self.cluster_id.is_empty() && welcome.cluster_id != self.cluster_id {
            self.metrics.snapshot_refused("other_cluster");
            return Err(Ended::Refused(format!(
                "{} belongs to cluster {}, this instance was enrolled in {}; enrol it anew with a new token and another --state-dir",
                session.connection.address, welcome.cluster_id, self.cluster_id
            )));
        }
        self.take_time(welcome.server_time_ms);
        if welcome.silence_ms > 0 {
            session.silence = Duration::from_millis(welcome.silence_ms.into());
        }
        if welcome.beat_ms > 0 {
            session.beats = beats(Duration::from_millis(welcome.beat_ms.into()));
        }
        session.welcomed = true;
        self.begin_telling(session, &welcome);
        self.begin_configuration(session, &welcome)?;
        backoff.reset();
        tracing::info!(control = session.connection.address, version = welcome.version, "connected to the control plane");
        self.metrics.control_connected.set(1);
        self.status.tell(|facts| {
            facts.connected = true;
            facts.control_problem = None;
        });
        Ok(())
    }

    fn take_time(&self, server_time_ms: u64) {
        if server_time_ms != 0 {
            self.clock.observe(time(server_time_ms));
        }
        self.status.confirm(self.clock.now());
    }

    fn take_delta(&mut self, session: &mut Session, delta: v1::Delta) -> Result<(), Ended> {
        if delta.lane() == v1::Lane::Configuration {
            return self.take_configuration(session, delta);
        }
        let before = self.publisher.resources().positions();
        match self.publisher.apply(delta) {
            Ok(None) => Ok(()),
            Ok(Some(published)) => {
                tell_of_restore(before, &published);
                self.publish(session, published);
                Ok(())
            }
            Err(older @ DeltaRefused::Older { .. }) => {
                self.metrics.snapshot_refused("older");
                tracing::error!(%older, "keeping what is held; was the control plane restored without raising its epoch?");
                self.warnings = vec![older.to_string()];
                Err(Ended::Refused(older.to_string()))
            }
            Err(refused @ DeltaRefused::NotValid(_)) => {
                self.metrics.snapshot_refused("not_valid");
                Err(Ended::Lost(refused.to_string()))
            }
        }
    }

    /// Asks anew for what the command beside it wants: a stream begins with nothing.
    fn begin_configuration(&mut self, session: &mut Session, welcome: &v1::Welcome) -> Result<(), Ended> {
        session.is_configured = is_pushed_by(welcome);
        let problem = format!("the control plane, version {}, does not push configuration: upgrade it", welcome.version);
        self.configuration.tell_problem((!session.is_configured).then_some(problem));
        if session.is_configured { self.ask(session) } else { Ok(()) }
    }

    fn ask(&mut self, session: &mut Session) -> Result<(), Ended> {
        let wanted = self.configuration.wanted();
        if wanted.is_empty() && session.configuration.is_unasked() {
            return Ok(());
        }
        let watch = session.configuration.ask(wanted);
        session.send(sidecar_message::Message::Watch(watch))
    }

    fn take_configuration(&mut self, session: &mut Session, delta: v1::Delta) -> Result<(), Ended> {
        let told = session.configuration.take(delta).map_err(|why| Ended::Lost(DeltaRefused::NotValid(why).to_string()))?;
        let Some(told) = told else { return Ok(()) };
        for nack in &told.ack.nacks {
            tracing::warn!(key = nack.key, why = nack.why, "not understood: it is as if it were not there");
        }
        self.configuration.tell(told.pushed);
        session.send(sidecar_message::Message::Ack(told.ack))
    }

    /// The snapshot is out: once it is enforced and on disk, the lane is acknowledged.
    fn publish(&mut self, session: &mut Session, published: Published) {
        let Published { lane, position, sequence } = published;
        self.keep(sequence);
        let nacks = self.publisher.resources().not_understood(lane);
        for nack in &nacks {
            let then = postern_api::key::when_not_understood(&nack.key);
            tracing::warn!(key = nack.key, why = nack.why, "not understood: {then}; is the control plane newer?");
        }
        let positions = self.publisher.resources().positions();
        self.metrics.snapshot_revision.set(i64::try_from(positions.newest()).unwrap_or(i64::MAX));
        let mut enforced = self.enforced.clone();
        let mut written = self.writer.written();
        let status = self.status.clone();
        let serves = positions.serve(self.instance.upstreams.is_empty());
        session.acknowledgements.push(Box::pin(async move {
            enforced.wait_for(|done| *done >= sequence).await.ok()?;
            status.tell(|facts| facts.has_snapshot |= serves);
            written.wait_for(|done| *done >= sequence).await.ok()?;
            Some(v1::Ack { lane: lane.to_wire().into(), position: Some(position.into()), nacks, ..v1::Ack::default() })
        }));
    }

    /// With what was closed since it was last told; it is enforced by now.
    fn with_cut(&mut self, ack: v1::Ack) -> v1::Ack {
        if ack.lane() != v1::Lane::Authority {
            return ack;
        }
        let (told, cut) = (self.cut_told, self.cut.so_far());
        self.cut_told = cut;
        v1::Ack { closed_connections: cut.0.saturating_sub(told.0), ended_requests: cut.1.saturating_sub(told.1), ..ack }
    }

    fn refused(&self, refusal: v1::Refusal) -> Ended {
        use v1::refusal::Code;
        let reason = format!("refused by the control plane: {}", refusal.reason);
        let facts = self.status.facts();
        match Code::try_from(refusal.code) {
            Ok(Code::Busy) => Ended::Busy(Duration::from_millis(refusal.retry_after_ms.into()), reason),
            Ok(Code::ProtocolDiffers) if facts.stage == Stage::Running && !facts.has_snapshot => Ended::Misconfigured(reason),
            _ => Ended::Refused(reason),
        }
    }

    fn beat(&self, session: &Session) -> Result<(), Ended> {
        session.send(sidecar_message::Message::Beat(v1::Beat {
            healthy: self.health.borrow().is_well,
            sidecar_time_ms: millis(std::time::SystemTime::now()),
            active_connections: u64::try_from(self.open_connections.load(Ordering::Relaxed)).unwrap_or(u64::MAX),
        }))
    }

    /// A service that has just come up is registered again, since what it listens on is known only now; and one whose
    /// checks say something else, with what they say.
    async fn tell_health(&self, session: &mut Session, health: Health) -> Result<(), Ended> {
        let before = std::mem::replace(&mut session.told, health.clone());
        if (health.is_well && !before.is_well) || health.checks != before.checks {
            let registration = self.instance.registration(session.connection.local, health, self.warnings.clone()).await;
            session.send(sidecar_message::Message::Registration(registration))?;
        }
        self.beat(session)
    }

    /// Leaves the mesh: the control plane takes this instance out of every upstream at once, and says so.
    fn say_goodbye(&self, session: &mut Session, reason: String) -> Result<(), Ended> {
        session.answer_until = Some(Instant::now() + self.periods.goodbye);
        session.send(sidecar_message::Message::Goodbye(v1::Goodbye { reason }))
    }

    /// Ends the stream after the goodbye.
    async fn hang_up(&mut self, session: &mut Session, incoming: &mut Streaming<v1::ControlMessage>) -> Ended {
        if let Err(ended) = self.tell_the_last(session) {
            return ended;
        }
        let (closed, _) = mpsc::channel(1);
        // Without a sender the request ends, and with it the stream.
        session.outgoing = closed;
        let ended = async { while let Ok(Some(_)) = incoming.message().await {} };
        if timeout(self.periods.goodbye, ended).await.is_err() {
            tracing::debug!("the control plane did not end the stream after the goodbye");
        }
        Ended::Goodbye
    }
}

fn beats(period: Duration) -> Interval {
    let mut beats = interval_at(Instant::now() + period, period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// What a gRPC status says, for people.
fn said(status: &tonic::Status) -> String {
    let mut text = if status.message().is_empty() { format!("{:?}", status.code()) } else { status.message().to_owned() };
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A raised epoch: what is held from now on may be older than what was.
fn tell_of_restore(before: Positions, published: &Published) {
    let held = match published.lane {
        Lane::Authority => before.authority,
        Lane::Reachability => before.reachability,
    };
    if !held.is_start() && published.position.epoch > held.epoch {
        let (lane, taken) = (published.lane, published.position);
        tracing::warn!(?lane, %held, %taken, "the control plane was restored from a snapshot: taking its state");
    }
}
