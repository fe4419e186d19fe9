//! Redis behind a sidecar, pipelined.

use std::io::{BufRead, BufReader, Write};
use std::process::Command;

use crate::support::{Carriage, Mesh, Redis, connect, over_every_carriage};

over_every_carriage!(redis_pipelines_through_the_pair_with_every_reply_right);

fn redis_pipelines_through_the_pair_with_every_reply_right(carriage: Carriage) {
    let mesh = Mesh::over(carriage);
    let redis = Redis::start(&mesh.path(""));
    let _cache = mesh.serve("cache", &redis.address());
    let web = mesh.call("web", &["cache"]);
    mesh.allow("web", "cache");
    let upstream = web.upstream("cache");
    let through = upstream.rsplit(':').next().unwrap();

    let report = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", through, "-n", "50000", "-P", "16", "-c", "50", "-t", "set,get,incr", "-q"])
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&report.stdout), String::from_utf8_lossy(&report.stderr));
    assert!(report.status.success() && !text.to_lowercase().contains("error"), "{text}");
    assert_eq!(text.matches("requests per second").count(), 3, "{text}");

    const KEYS: usize = 5_000;
    let stream = connect(upstream);
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for key in 0..KEYS {
            write!(writer, "SET k{key} v{key}\r\nGET k{key}\r\n").unwrap();
        }
    });
    let mut replies = BufReader::new(stream).lines();
    let mut reply = || replies.next().unwrap().unwrap();
    for key in 0..KEYS {
        assert_eq!(reply(), "+OK");
        let value = format!("v{key}");
        assert_eq!(reply(), format!("${}", value.len()));
        assert_eq!(reply(), value);
    }
    sender.join().unwrap();
}
