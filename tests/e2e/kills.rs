//! `kill -9` of either sidecar at any moment, while streams carry sequences.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;

use crate::support::{Carriage, Ended, Mesh, Sidecar, connect, converse, eventually, free_port, over_every_tunnel};

/// Of each of two record layers.
const KILLS: usize = 100;
const STREAMS: usize = 20;

over_every_tunnel!(streams_end_with_an_error_or_whole_when_a_sidecar_is_killed);

/// Sends a sequence and checks the one that it receives, on every connection.
struct Service {
    address: String,
    active: Arc<AtomicUsize>,
    ends: Arc<Mutex<Vec<Ended>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (active, ends) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Ended>>>::default());
        let service = Self { address, active: active.clone(), ends: ends.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                active.fetch_add(1, Ordering::SeqCst);
                let (active, ends) = (active.clone(), ends.clone());
                std::thread::spawn(move || {
                    let ended = match stream.peek(&mut [0]) {
                        // A health probe connects, and says nothing.
                        Ok(0) => None,
                        Ok(_) => Some(converse(&stream, some_words())),
                        Err(error) => Some(Ended::Cut(error.kind())),
                    };
                    ends.lock().extend(ended);
                    active.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        service
    }

    /// Whether one of its connections has ended whole since it was asked for all of them.
    fn has_a_whole_one(&self) -> bool {
        self.ends.lock().contains(&Ended::Complete)
    }

    /// How its connections have ended since it was asked last, once all have.
    fn ends(&self) -> Vec<Ended> {
        eventually("every stream has ended at the service", || (self.active.load(Ordering::SeqCst) == 0).then_some(()));
        std::mem::take(&mut *self.ends.lock())
    }
}

/// How long a sequence is: most are over soon, some are under way at any moment of a round.
fn some_words() -> u64 {
    1 << rand::rng().random_range(4..20)
}

fn streams_end_with_an_error_or_whole_when_a_sidecar_is_killed(carriage: Carriage) {
    let service = Service::start();
    let mesh = Mesh::over(carriage);
    let listen = format!("127.0.0.1:{}", free_port());
    let mut api = mesh.sidecar("api", "api-1", &["--local", &service.address, "--listen", &listen]);
    let mut web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let (mut complete, mut cut) = (0, 0);

    for kill in 0..KILLS {
        let kills_caller = kill % 2 == 0;
        let upstream = web.upstream("api").to_owned();
        let callers: Vec<_> = (0..STREAMS)
            .map(|_| {
                let upstream = upstream.clone();
                std::thread::spawn(move || TcpStream::connect(upstream).map(|stream| converse(&stream, some_words())))
            })
            .collect();
        if kill % 10 == 0 {
            // However slow the machine is, not every kill comes before all of them.
            eventually("a stream is whole", || service.has_a_whole_one().then_some(()));
        } else {
            std::thread::park_timeout(Duration::from_micros(rand::rng().random_range(0..150_000)));
        }
        if kills_caller {
            web.kill_hard()
        } else {
            api.kill_hard()
        }

        // A caller whose own sidecar is gone before it connects has no stream.
        let at_callers: Vec<_> = callers.into_iter().filter_map(|caller| caller.join().unwrap().ok()).collect();
        let at_service = service.ends();
        assert!(kills_caller || at_callers.len() == STREAMS);
        // The kernel closes the sockets of a dead sidecar in order: only the other side must see an error.
        let beyond = if kills_caller { &at_service } else { &at_callers };
        assert!(
            !beyond.contains(&Ended::Short),
            "kill {kill} of the {}: {beyond:?}",
            if kills_caller { "caller" } else { "called" }
        );
        complete += beyond.iter().filter(|ended| **ended == Ended::Complete).count();
        cut += beyond.iter().filter(|ended| matches!(ended, Ended::Cut(_))).count();

        if kills_caller {
            web.start()
        } else {
            api.start()
        }
        works_again(&web);
        service.ends();
    }
    println!("{carriage}: {KILLS} kills, {complete} streams were whole and {cut} cut beyond the killed end");
    assert!(cut > 0 && complete > 0, "{cut} streams were cut and {complete} whole: the kills hit nothing or everything");
}

#[track_caller]
fn works_again(web: &Sidecar) {
    eventually("new calls go through", || {
        (converse(&connect(web.upstream("api")), some_words()) == Ended::Complete).then_some(())
    });
}
