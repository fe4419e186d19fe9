//! Real processes of the real binary, with real clients and servers.

mod calls;
mod command_line;
mod hosts;
mod nginx;
mod outage;
mod postgres;
mod prometheus;
mod redis;
mod run_command;
mod support;
mod tour;
