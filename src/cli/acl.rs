//! Flags of `meshctl acl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use postern_names::ServiceName;

use super::OutputArgs;
use crate::duration;

/// Who may use the API.
#[derive(Debug, Args)]
pub struct AclArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AclCommand,
    /// How to print the answer.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `meshctl acl` can do.
#[derive(Debug, Subcommand)]
pub enum AclCommand {
    /// Tokens of people, CI and programs
    #[command(subcommand)]
    Token(TokenCommand),
    /// What a token may
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Policies under one name
    #[command(subcommand)]
    Role(RoleCommand),
    /// Make the first management token, once
    Bootstrap,
}

/// What a token or a role is made of.
#[derive(Debug, Clone, Default, Args)]
pub struct LinkArgs {
    /// A policy, by name or id.
    #[arg(long, value_name = "NAME")]
    pub policy: Vec<String>,
    /// Stands for a service: writes it, reads everything else that can be discovered.
    #[arg(long, value_name = "NAME")]
    pub service_identity: Vec<String>,
    /// Stands for a node.
    #[arg(long, value_name = "NAME[:DATACENTER]")]
    pub node_identity: Vec<String>,
    /// For people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
}

/// What `meshctl acl token` can do.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; its secret is printed once
    Create {
        /// What it grants.
        #[command(flatten)]
        links: LinkArgs,
        /// A role, by name or id.
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
        /// How long it lasts, 1m to 1 year [default: until it is deleted].
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        ttl: Option<Duration>,
    },
    /// Every token, without its secret
    List,
    /// One token; `self` for the one in use, `anonymous` for requests without one
    Show {
        /// Its AccessorID.
        id: String,
    },
    /// Give a token other policies and roles: what is not named is taken away
    Update {
        /// Its AccessorID, or `anonymous`.
        id: String,
        /// What it grants.
        #[command(flatten)]
        links: LinkArgs,
        /// A role, by name or id.
        #[arg(long, value_name = "NAME")]
        role: Vec<String>,
    },
    /// End a token, at once
    Delete {
        /// Its AccessorID.
        id: String,
    },
}

/// What `meshctl acl policy` can do.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Make a policy, or change the one of this name
    Set {
        /// Its name.
        name: String,
        /// Rules in Consul's syntax, HCL or JSON; `-` reads standard input.
        #[arg(short = 'f', long = "file", value_name = "FILE", required_unless_present = "rules", conflicts_with = "rules")]
        file: Option<PathBuf>,
        /// The rules themselves.
        #[arg(long, value_name = "RULES")]
        rules: Option<String>,
        /// For people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Every policy
    List,
    /// One policy with its rules
    Show {
        /// Its name or id.
        name: String,
    },
    /// Delete a policy: tokens and roles with it have one less
    Delete {
        /// Its name or id.
        name: String,
    },
}

/// What `meshctl acl role` can do.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Make a role, or change the one of this name
    Set {
        /// Its name.
        name: String,
        /// What it grants.
        #[command(flatten)]
        links: LinkArgs,
        /// A service whose sidecars may read what it grants, for `meshctl run --template` and --env-prefix.
        #[arg(long, value_name = "NAME")]
        service: Vec<ServiceName>,
    },
    /// Every role
    List,
    /// One role
    Show {
        /// Its name or id.
        name: String,
    },
    /// Delete a role: tokens with it have one less
    Delete {
        /// Its name or id.
        name: String,
    },
}
