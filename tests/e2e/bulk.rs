//! Much on one stream, many streams on one pair, and a stream that nobody reads.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::{
    Carriage, Ended, Mesh, Process, TUNNEL_IN_PLACE, connect, converse, over_every_carriage, over_every_tunnel, receive, say,
    send,
};

/// What each side of a stream sends.
const MIB_OF_WORDS: u64 = (1 << 20) / 8;

over_every_carriage!(a_hundred_mebibytes_each_way_at_once);
over_every_tunnel!(a_reader_that_stops_does_not_stop_another_one_on_its_tunnel);

fn a_hundred_mebibytes_each_way_at_once(carriage: Carriage) {
    let words = 100 * MIB_OF_WORDS;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mesh = Mesh::over(carriage);
    let api = mesh.serve("api", &listener.local_addr().unwrap().to_string());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    // A health probe connects, and says nothing.
    let service = std::thread::spawn(move || {
        loop {
            let (stream, _) = listener.accept().unwrap();
            if matches!(stream.peek(&mut [0]), Ok(1)) {
                return converse(&stream, words);
            }
        }
    });

    let ended = converse(&connect(web.upstream("api")), words);

    assert_eq!(ended, Ended::Complete, "at the caller");
    assert_eq!(service.join().unwrap(), Ended::Complete, "at the service");
    let bytes = (8 * (words + 1)) as f64;
    for (sidecar, direction) in [(&api, "direction=\"inbound\""), (&web, "direction=\"outbound\"")] {
        for way in ["way=\"in\"", "way=\"out\""] {
            assert_eq!(sidecar.metric("postern_bytes_total", &[direction, way]), bytes, "{direction} {way}");
        }
    }
}

/// Sends a sequence of the length that its caller asks for with one word.
fn sequences(listener: TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || {
            let mut asked = [0; 8];
            if (&stream).read_exact(&mut asked).is_ok() {
                let _ = send(&stream, u64::from_be_bytes(asked));
            }
        });
    }
}

fn ask(mut stream: &TcpStream, words: u64) {
    stream.write_all(&words.to_be_bytes()).unwrap();
}

fn a_reader_that_stops_does_not_stop_another_one_on_its_tunnel(carriage: Carriage) {
    let stop = if carriage == TUNNEL_IN_PLACE { Duration::from_secs(120) } else { Duration::from_secs(20) };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mesh = Mesh::over(carriage);
    let _api = mesh.serve("api", &listener.local_addr().unwrap().to_string());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    std::thread::spawn(move || sequences(listener));
    // All opened before a byte of bulk flows: a busy tunnel takes no new ones.
    let stopped = connect(web.upstream("api"));
    let running: Vec<_> = (0..20).map(|_| connect(web.upstream("api"))).collect();
    ask(&stopped, 64 * MIB_OF_WORDS);
    let begun = Instant::now();
    // Whatever can be on its way is, once the first byte is here and the others have run for a while.
    stopped.peek(&mut [0]).unwrap();

    let mut moved = 0;
    for (number, stream) in running.iter().enumerate() {
        ask(stream, 4 * MIB_OF_WORDS);
        assert_eq!(receive(stream), Ended::Complete, "stream {number} beside the one that is not read");
        moved += 4;
        assert_eq!(web.tunnels("outbound"), 1.0, "all are on one tunnel");
        let share = stop.mul_f64((number + 1) as f64 / running.len() as f64);
        std::thread::park_timeout(share.saturating_sub(begun.elapsed()));
    }

    println!("{carriage}: {moved} MiB beside a reader that stopped for {:?}", begun.elapsed());
    assert_eq!(receive(&stopped), Ended::Complete, "the one that had stopped");
}

/// In a process of its own, for its files.
const ECHO: &str = include_str!("scripts/echo.py");
/// Files that a sidecar keeps for other things, and that this process needs for other tests.
const OTHER_FILES: u64 = 3_000;

#[test]
fn five_thousand_streams_on_one_pair() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let streams = usize::try_from(hard.saturating_sub(OTHER_FILES) / 2).unwrap().min(5_000);
    println!("{streams} streams, by the file limit of {hard}");
    let mesh = Mesh::over(TUNNEL_IN_PLACE);
    let echo = Process::start_announcing(Command::new("python3").args(["-c", ECHO]), &mesh.path("echo.log"));
    let (address, most) = (echo.line().trim_matches('"').to_owned(), streams.to_string());
    let more = ["--max-connections", &most, "--max-connections-per-peer", &most];
    let api = mesh.sidecar("api", "api-1", &[&["--local", &address], &more[..]].concat());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");

    let mut open = Vec::with_capacity(streams);
    for number in 0..streams {
        let mut stream = connect(web.upstream("api"));
        assert!(say(&mut stream, "first").is_some(), "stream {number}");
        open.push(stream);
    }
    for (number, stream) in open.iter_mut().enumerate() {
        let text = format!("{number:08}");
        assert_eq!(say(stream, &text).as_deref(), Some(text.as_str()), "stream {number}, when all are open");
    }

    assert_eq!(api.metric("postern_connections_active", &["direction=\"inbound\""]), streams as f64);
    assert_eq!(web.tunnels("outbound"), streams.div_ceil(2_048) as f64, "2,048 streams a tunnel");
    assert!(say(&mut connect(web.upstream("api")), "one more").is_none(), "the limit holds");
    // All at once: what is asked by every stream is answered on every stream.
    open.iter_mut().for_each(|stream| stream.write_all(b"together").unwrap());
    for stream in &mut open {
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"together");
    }
}
