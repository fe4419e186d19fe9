//! nginx as the service of the HTTP/1.1 lines: 200 bytes from memory, a large file, and a sink.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::http::BULK;
use crate::pair::free_addresses;
use crate::permission::{BYTES, FORBIDDEN, ITEMS, SINK};
use crate::process::Process;

const BODY: usize = 200;

/// A body is read whole, into memory, before the sink answers: `return` alone would answer first and read later.
pub fn start(nginx: &Path, directory: &Path) -> anyhow::Result<(SocketAddr, Process)> {
    let addresses = free_addresses(2)?;
    let (address, inner) = (addresses[0], addresses[1]);
    let files = directory.join("files");
    std::fs::create_dir_all(files.join("v1"))?;
    // Without blocks on the disk: its pages are zeroes in the page cache.
    File::create(files.join(BYTES.trim_start_matches('/')))?.set_len(BULK as u64)?;
    let settings = directory.join("nginx.conf");
    let body = "x".repeat(BODY);
    let text = format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{
  worker_connections 18000;
}}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_max_body_size 0;
  client_body_buffer_size {buffer};
  server {{
    listen {address} backlog=4096;
    root {files};
    default_type text/plain;
    location = {ITEMS} {{ return 200 \"{body}\"; }}
    location = {FORBIDDEN} {{ return 200 \"{body}\"; }}
    location = {BYTES} {{ }}
    location = {SINK} {{
      proxy_pass_request_body off;
      proxy_set_header Content-Length \"\";
      proxy_pass http://{inner};
    }}
  }}
  server {{
    listen {inner};
    return 200 \"{body}\";
  }}
}}
",
        buffer = BULK + (64 << 10),
        files = files.display(),
    );
    std::fs::write(&settings, text)?;
    let mut command = Command::new(nginx);
    command.arg("-p").arg(directory).arg("-c").arg(&settings);
    Ok((address, Process::start(&mut command, &directory.join("service.log"))?))
}
