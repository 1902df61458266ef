//! A command that failed: what is printed, and the exit code that tells scripts why.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use crate::bridge::forwarder;
use crate::config::file::Invalid;
use crate::config::store;
use crate::service;
use crate::tls::{identity, outbound};

/// The stable exit codes; README lists them.
pub mod code {
    /// Failed, or the answer is "no".
    pub const FAILED: u8 = 1;
    /// Wrong usage: an unknown flag, a malformed value.
    pub const USAGE: u8 = 2;
    /// It exists but does not run.
    pub const NOT_RUNNING: u8 = 3;
    /// No such forwarder.
    pub const NO_SUCH: u8 = 4;
    /// A decision is missing and nobody can be asked.
    pub const UNDECIDED: u8 = 5;
    /// No permission.
    pub const NO_PERMISSION: u8 = 77;
    /// A file of settings is invalid.
    pub const CONFIG: u8 = 78;
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failed {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failed {
    /// A failure with this exit code.
    pub fn with(code: u8, message: impl Display) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    /// The ordinary failure.
    pub fn new(message: impl Display) -> Self {
        Self::with(code::FAILED, message)
    }

    /// Adds the cure.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Adds the cure if there is one.
    pub fn maybe_hint(mut self, hint: Option<impl Display>) -> Self {
        self.hint = hint.map(|hint| hint.to_string()).or(self.hint);
        self
    }

    /// The same for settings that were typed: wrong usage, and named as flags.
    pub fn typed(mut self) -> Self {
        if self.code == code::CONFIG {
            self.code = code::USAGE;
            self.message = format!("--{}", self.message);
        }
        self
    }

    /// The same for settings that were read from a file, which the message then names.
    pub fn read_from(mut self, path: &Path) -> Self {
        if self.code == code::CONFIG {
            self.message = format!("{}: {}", path.display(), self.message);
        }
        self
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The message without its hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Prints message and hint to stderr.
    pub fn report(self) -> ExitCode {
        eprintln!("{}", self.message);
        if let Some(hint) = self.hint {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Invalid> for Failed {
    fn from(error: Invalid) -> Self {
        Self::with(if error.path.is_some() { code::CONFIG } else { code::USAGE }, error)
    }
}

impl From<store::Error> for Failed {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Missing { .. } => Self::with(code::NO_SUCH, error).hint("ewsbridge list"),
            store::Error::Invalid(invalid) => invalid.into(),
            store::Error::Io { ref source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::with(code::NO_PERMISSION, error).hint("run it as root: sudo ewsbridge ...")
            }
            store::Error::Io { .. } => Self::new(error),
        }
    }
}

impl From<forwarder::Error> for Failed {
    fn from(error: forwarder::Error) -> Self {
        let hint = error.hint();
        let is_denied = |source: &std::io::Error| source.kind() == std::io::ErrorKind::PermissionDenied;
        match &error {
            forwarder::Error::Outbound(outbound::Error::Ciphers { .. }) => {
                Self::with(code::CONFIG, error).maybe_hint(hint)
            }
            forwarder::Error::Identity(identity::Error::Io { source, .. }) if is_denied(source) => {
                Self::with(code::NO_PERMISSION, error).hint("run it as root: sudo ewsbridge ...")
            }
            _ => Self::new(error).maybe_hint(hint),
        }
    }
}

impl From<service::Error> for Failed {
    fn from(error: service::Error) -> Self {
        let exit = if error.is_permission() { code::NO_PERMISSION } else { code::FAILED };
        let hint = error.hint();
        Self::with(exit, error).maybe_hint(hint)
    }
}
