//! Life under systemd: readiness, units, and getting onto a machine without a package.
//!
//! Plain synchronous functions that print nothing: `cli` tells the admin what was done; only a running
//! service's side of its control socket is asynchronous. Nothing here knows TLS, or of a
//! forwarder's settings more than where it listens.

use std::fmt;
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::unistd::{Gid, Group, Uid};

use crate::words;

mod account;
pub mod control;
pub mod install;
pub mod notify;
mod rollback;
pub mod sockets;
pub mod units;
pub mod watchdog;

/// The system user and group that serve forwarders.
pub const ACCOUNT: &str = "ewsbridge";

/// What went wrong with a service, a unit or the installation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Only root may do this: exit code 77.
    #[error("{0}: permission denied")]
    NotRoot(&'static str),
    /// A file or folder could not be read, written or given away.
    #[error("{}: {what}: {}", .thing.display(), words::of(.cause))]
    File {
        /// The file or folder.
        thing: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
    /// A system command could not be started or failed.
    #[error("{command}: {cause}")]
    Command {
        /// The command and its arguments.
        command: String,
        /// What it wrote to standard error, or how it ended.
        cause: String,
    },
    /// A service did not come up; it was stopped again.
    #[error("{unit}: start: {cause}")]
    Start {
        /// The unit.
        unit: String,
        /// What the service itself said last, from the journal; several lines at times.
        cause: String,
    },
    /// A package of the system brought a binary and units; ours would be in their way.
    #[error("{}: belongs to the package {package}", .path.display())]
    Packaged {
        /// The package's binary.
        path: PathBuf,
        /// The package's name.
        package: String,
    },
    /// Forwarders still exist, so nothing was uninstalled.
    #[error("uninstall: forwarders exist: {}", .0.join(", "))]
    ForwardersExist(Vec<String>),
}

impl Error {
    /// What the admin can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NotRoot(_) => Some("run it as root, for example with sudo".into()),
            Error::Packaged { .. } => Some("update it with the system's package manager".into()),
            Error::ForwardersExist(names) => {
                Some(names.iter().map(|name| format!("ewsbridge remove {name}")).collect::<Vec<_>>().join("\n"))
            }
            // The service's own hint is in what it said.
            Error::Start { unit, cause } if !cause.contains("\nhint: ") => Some(format!("journalctl -u {unit}")),
            _ => None,
        }
    }

    /// Whether the caller lacks the right to do it, which is exit code 77.
    pub fn is_permission(&self) -> bool {
        match self {
            Error::NotRoot(_) => true,
            Error::File { cause, .. } => cause.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

/// The group whose members read settings and served keys; none before `install`.
pub fn group_of_service() -> Option<Gid> {
    Group::from_name(ACCOUNT).ok().flatten().map(|group| group.gid)
}

/// Whether this process is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

fn require_root(what: &'static str) -> Result<(), Error> {
    if is_root() { Ok(()) } else { Err(Error::NotRoot(what)) }
}

/// Gives an [`io::Error`] the file and the attempt that it belongs to.
fn file_error<'a>(thing: &'a Path, what: &'static str) -> impl Fn(io::Error) -> Error + 'a {
    move |cause| Error::File { thing: thing.to_path_buf(), what, cause }
}

/// Writes a file so that it appears whole or not at all, readable by `mode` from the first moment.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let error = file_error(path, "write");
    let folder = path.parent().unwrap_or(Path::new("/"));
    // In the same folder: a rename within it is atomic, and SELinux labels the file as its neighbours.
    let file = tempfile::Builder::new().prefix(".ewsbridge-").tempfile_in(folder);
    let file = file.map_err(|cause| error(without_path(cause)))?;
    file.as_file().write_all(content).map_err(&error)?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(&error)?;
    file.as_file().sync_all().map_err(&error)?;
    file.persist(path).map_err(|failed| error(failed.error))?;
    Ok(())
}

/// One of tempfile's errors without the name of the temporary file, which tells nobody anything.
fn without_path(error: io::Error) -> io::Error {
    let text = error.to_string();
    io::Error::new(error.kind(), text.split(" at path ").next().unwrap_or_default())
}

/// One call of a system command, in English and without a pager.
struct Call(Command);

impl Call {
    fn new(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.env("PATH", SEARCH_PATH);
        command.env("LC_ALL", "C").env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0");
        Self(command)
    }

    /// Whether the program is on this machine.
    fn exists(&self) -> bool {
        let program = self.0.get_program();
        SEARCH_PATH.split(':').any(|folder| Path::new(folder).join(program).exists())
    }

    /// Its output, whatever its exit status; an error only if it could not be started.
    fn output(mut self) -> Result<Output, Error> {
        let result = self.0.output();
        result.map_err(|cause| Error::Command { command: self.to_string(), cause: cause.to_string() })
    }

    /// Its standard output, if it succeeded.
    fn run(mut self) -> Result<String, Error> {
        let result = self.0.output();
        let cause = match result {
            Ok(output) if output.status.success() => return Ok(text_of(&output.stdout)),
            Ok(output) => complaint(&output),
            Err(cause) => cause.to_string(),
        };
        Err(Error::Command { command: self.to_string(), cause })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.get_program().to_string_lossy())?;
        self.0.get_args().try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What a failed command said, on one line; how it ended if it said nothing.
fn complaint(output: &Output) -> String {
    let said: Vec<String> = text_of(&output.stderr).lines().map(|line| line.trim().to_owned()).collect();
    if said.iter().any(|line| !line.is_empty()) { said.join("; ") } else { output.status.to_string() }
}

/// Not the caller's: `su` without a login shell leaves the sbin folders out, where useradd lives.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_names_itself_and_its_complaint() {
        let error = Call::new("sh", &["-c", "echo no such thing >&2; exit 3"]).run().expect_err("it fails");
        assert_eq!(error.to_string(), "sh -c echo no such thing >&2; exit 3: no such thing");
        let error = Call::new("false", &[]).run().expect_err("it fails");
        assert_eq!(error.to_string(), "false: exit status: 1");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_once_and_by_its_own_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("none/file");
        let error = write_whole(&path, b"", 0o644).expect_err("it fails");
        assert_eq!(error.to_string(), format!("{}: write: no such file or directory", path.display()));
    }

    #[test]
    fn forwarders_in_the_way_are_named_with_the_command_that_removes_them() {
        let error = Error::ForwardersExist(vec!["exch1".into(), "exch2".into()]);
        assert_eq!(error.to_string(), "uninstall: forwarders exist: exch1, exch2");
        assert_eq!(error.hint().as_deref(), Some("ewsbridge remove exch1\newsbridge remove exch2"));
    }
}
