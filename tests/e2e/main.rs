//! Real processes of the real binary, with real clients and servers.

mod calls;
mod command_line;
mod dev;
mod draining;
mod hostile;
mod hosts;
mod https;
mod lifecycle;
mod nginx;
mod objects;
mod outage;
mod own_ca;
mod postgres;
mod prometheus;
mod redis;
mod run_command;
mod run_ends;
mod sockets;
mod support;
mod systemd;
mod terminal;
mod tour;
