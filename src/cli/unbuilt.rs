//! Commands whose capability is not built yet: they take what they will take, and say so.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// Whatever stands behind the command.
#[derive(Debug, Clone, Default, Args)]
pub struct Rest {
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub arguments: Vec<OsString>,
}

macro_rules! unbuilt {
    ($(#[$doc:meta])* $args:ident, $command:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Args)]
        pub struct $args {
            /// What to do.
            #[command(subcommand)]
            pub command: $command,
        }

        /// What the command will do.
        #[derive(Debug, Subcommand)]
        pub enum $command {
            $($(#[$variant_doc])* $variant(Rest)),+
        }

        impl $command {
            /// The word on the command line.
            pub fn word(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $word),+
                }
            }
        }
    };
}

unbuilt!(
    /// Jobs.
    JobArgs, JobCommand {
        /// Start a job (not built yet)
        Up => "up",
        /// What `up` would change (not built yet)
        Plan => "plan",
        /// Running tasks (not built yet)
        Ps => "ps",
        /// Output of tasks (not built yet)
        Logs => "logs",
        /// Stop a job (not built yet)
        Stop => "stop",
        /// Write units for systemd or a job for Nomad (not built yet)
        Render => "render",
    }
);
