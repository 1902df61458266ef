//! Stands in for systemd where there is none: hands sockets to a process as sd_listen_fds(3) says, and
//! keeps what the process has it store as sd_pid_notify_with_fds(3) says.

// Each topic needs a part of it.
#![allow(dead_code)]

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use super::cli_support::{EWSBRIDGE, Live, Sandbox, TIMEOUT};

/// Hears what its processes say, and keeps what they store.
pub(crate) struct Supervisor {
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    store: Vec<(String, OwnedFd)>,
    messages: Vec<String>,
}

impl Supervisor {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        let state = Arc::new(Mutex::new(State::default()));
        let heard = Arc::downgrade(&state);
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket option");
        thread::spawn(move || {
            loop {
                let received = receive(&socket);
                let Some(state) = heard.upgrade() else { return };
                if let Some((text, descriptors)) = received {
                    state.lock().unwrap_or_else(PoisonError::into_inner).hear(text, descriptors);
                }
            }
        });
        Self { folder, state }
    }

    /// Starts `ewsbridge run exch1` with these descriptors besides what is stored, and waits until it listens.
    #[track_caller]
    pub(crate) fn serve(&self, sandbox: &Sandbox, passed: &[(&str, &dyn AsFd)]) -> Live {
        let live = Live::spawn(&mut self.command(sandbox, passed));
        live.wait_for(" listening");
        live
    }

    /// The same, not yet started.
    pub(crate) fn command(&self, sandbox: &Sandbox, passed: &[(&str, &dyn AsFd)]) -> Command {
        let state = self.state();
        let stored = state.store.iter().map(|(name, fd)| (name.as_str(), copy(fd)));
        let all: Vec<(&str, OwnedFd)> = passed.iter().map(|(name, fd)| (*name, copy(*fd))).chain(stored).collect();
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let names = names.join(":");
        let mut command = shell("LISTEN_PID=$$");
        sandbox.surround(&mut command);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        if !all.is_empty() {
            command.env("LISTEN_FDS", all.len().to_string()).env("LISTEN_FDNAMES", names);
            hand_over(&mut command, all.into_iter().map(|(_, fd)| fd).collect());
        }
        command
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of what it keeps.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.state().store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// A copy of the first that it keeps, as systemd's own is one.
    pub(crate) fn stored_copy(&self) -> OwnedFd {
        copy(&self.state().store.first().expect("something is stored").1)
    }

    /// Waits until a process has said this.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            if let Some(message) = self.state().messages.iter().find(|message| message.contains(text)) {
                return message.clone();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("nobody said {text:?}, but {:#?}", self.state().messages);
    }

    /// How often it was said.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.state().messages.iter().filter(|message| message.contains(text)).count()
    }

    /// Forgets what was said so far.
    pub(crate) fn forget_messages(&self) {
        self.state().messages.clear();
    }
}

impl State {
    /// Does what systemd 252 does with a message.
    fn hear(&mut self, text: String, descriptors: Vec<OwnedFd>) {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let name = value("FDNAME").unwrap_or("stored").to_owned();
        if value("FDSTORE") == Some("1") {
            for descriptor in descriptors {
                if !self.store.iter().any(|(_, kept)| inode(kept) == inode(&descriptor)) {
                    self.store.push((name.clone(), descriptor));
                }
            }
        } else if value("FDSTOREREMOVE") == Some("1") {
            self.store.retain(|(kept, _)| *kept != name);
        }
        self.messages.push(text);
    }
}

/// `ewsbridge run exch1` behind an assignment that only a shell can make.
pub(crate) fn shell(assignment: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{assignment} exec {EWSBRIDGE} run exch1")]);
    command
}

/// Has the command begin with these descriptors, from 3 on.
pub(crate) fn hand_over(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let give = move || {
        for (number, descriptor) in (3..).zip(&descriptors) {
            // SAFETY: whatever has the number, the child has no use for it.
            #[allow(unsafe_code)]
            let given: RawFd = unsafe { libc::dup2(descriptor.as_raw_fd(), number) };
            if given < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: dup2 is async-signal-safe, and nothing is allocated.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(give);
    }
}

/// A copy out of the way of the numbers from 3 on.
pub(crate) fn copy(descriptor: impl AsFd) -> OwnedFd {
    let number = fcntl(descriptor.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(100)).expect("a descriptor");
    // SAFETY: it has just been made.
    #[allow(unsafe_code)]
    unsafe {
        OwnedFd::from_raw_fd(number)
    }
}

fn inode(descriptor: &OwnedFd) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&File::from(copy(descriptor)).metadata().expect("a descriptor"))
}

/// One message and what is attached to it; nothing after a while.
fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
    let mut descriptors = Vec::new();
    for attached in message.cmsgs().expect("whole control messages") {
        if let ControlMessageOwned::ScmRights(numbers) = attached {
            // SAFETY: the kernel has just made them for this process.
            #[allow(unsafe_code)]
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let length = message.bytes;
    Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), descriptors))
}
