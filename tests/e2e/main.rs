//! Real processes of the real binary, with real clients and servers.

mod calls;
mod command_line;
mod nginx;
mod outage;
mod postgres;
mod redis;
mod run_command;
mod support;
mod tour;
