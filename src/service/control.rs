//! The control socket of a running forwarder: one request a connection, one line of JSON each way.
//!
//! ```text
//! -> {"version":1,"request":"reload"}
//! <- {"version":1,"ok":true,"text":"reloaded; 12 open connections go on as they were"}
//! ```
//!
//! Who may open it decides who may ask: root and the service's group. What is asked is done by whoever
//! serves it; here it is only carried. The server's side is asynchronous, the client's blocks.

use std::fs;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Stream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Gid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The version of the requests; another one is refused, and so is what it may mean.
const VERSION: u32 = 1;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Take over what the files say.
    Reload,
    /// Accept nobody any more, and answer when all open connections have ended.
    Drain,
    /// Say how things stand, with each open connection.
    Status,
    /// The same without them.
    Summary,
}

/// A request, as it is written.
#[derive(Serialize, Deserialize)]
struct Request {
    version: u32,
    request: Order,
}

/// The version of any request, also of one that can't be read further.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The version of this answer.
    version: u32,
    /// Whether it was done.
    pub ok: bool,
    /// What was done, or why not, in a sentence's part.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether a restart would do it.
    #[serde(default)]
    pub needs_restart: bool,
    /// How things stand, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<serde_json::Value>,
}

impl Answer {
    /// It was done.
    pub fn done(text: impl Into<String>) -> Self {
        Self { version: VERSION, ok: true, text: text.into(), hint: None, needs_restart: false, status: None }
    }

    /// This is how it stands.
    pub fn standing(status: serde_json::Value) -> Self {
        Self { status: Some(status), ..Self::done("this is how it stands") }
    }

    /// It was not.
    pub fn refused(text: impl Into<String>, hint: Option<String>) -> Self {
        Self { version: VERSION, ok: false, text: text.into(), hint, needs_restart: false, status: None }
    }
}

/// The longest request, in bytes; a longer one is refused unread.
const LONGEST: u64 = 4096;
/// How long a request, and the taking of its answer, may last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests at a time; one more waits to be accepted.
const AT_A_TIME: usize = 32;

/// A socket that waits for requests; its file goes when it does.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    /// The file's number: another process may have put its own in the place.
    inode: u64,
    made_folder: bool,
}

impl Control {
    /// Puts the socket in place of one that an ended process has left. Its folder is made if it isn't there.
    ///
    /// Needs a runtime.
    ///
    /// # Errors
    /// The system's: no permission, a path longer than 107 bytes (unix(7)).
    pub fn bind(path: &Path, group: Option<Gid>) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let made_folder = !folder.exists();
        if made_folder {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
            give(folder, group)?;
        }
        // Under another name first: nobody finds it before its mode is right.
        let new = folder.join(format!(".new-{}", std::process::id()));
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new)?;
        let placed = (|| {
            fs::set_permissions(&new, fs::Permissions::from_mode(0o660))?;
            give(&new, group)?;
            let inode = fs::metadata(&new)?.ino();
            fs::rename(&new, path)?;
            Ok(inode)
        })();
        match placed {
            Ok(inode) => Ok(Self { listener, path: path.to_owned(), inode, made_folder }),
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(error)
            }
        }
    }

    /// Hands each request to `obey` and its answer back, for ever.
    ///
    /// Who leaves before the answer changes nothing of what was asked.
    ///
    /// # Cancel safety
    /// Dropping the future takes the socket away; requests that were read are still obeyed.
    pub async fn serve<Obeyed>(self, obey: impl Fn(Order) -> Obeyed + Clone + Send + 'static)
    where
        Obeyed: Future<Output = Answer> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(AT_A_TIME));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Descriptors are short, most likely.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let obey = obey.clone();
            tokio::spawn(async move {
                attend(stream, obey).await;
                drop(place);
            });
        }
    }
}

/// Hands a file to a group. A confined service may not even ask to change nothing.
fn give(path: &Path, group: Option<Gid>) -> io::Result<()> {
    Ok(group.map_or(Ok(()), |group| nix::unistd::chown(path, None, Some(group)))?)
}

impl Drop for Control {
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
        if self.made_folder {
            // Another forwarder's socket may be in it.
            let _ = self.path.parent().map(fs::remove_dir);
        }
    }
}

/// Reads one request, has it obeyed, writes the answer.
async fn attend<Obeyed: Future<Output = Answer>>(stream: UnixStream, obey: impl Fn(Order) -> Obeyed) {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = tokio::io::BufReader::new(read.take(LONGEST));
    let answer = match timeout(PATIENCE, read.read_until(b'\n', &mut line)).await {
        Ok(Ok(1..)) => match parse(&line) {
            Ok(order) => obey(order).await,
            Err(why) => Answer::refused(why, None),
        },
        // It has left, or says nothing.
        _ => return,
    };
    let mut text = serde_json::to_vec(&answer).unwrap_or_default();
    text.push(b'\n');
    let _ = timeout(PATIENCE, write.write_all(&text)).await;
}

/// Reads a request from its line.
///
/// # Errors
/// A sentence's part that says what is wrong with it.
pub fn parse(line: &[u8]) -> Result<Order, String> {
    if line.last() != Some(&b'\n') {
        return Err(format!("a request is one line of at most {LONGEST} bytes"));
    }
    match serde_json::from_slice::<Version>(line) {
        Ok(Version { version: VERSION }) => {}
        Ok(Version { version }) => {
            return Err(format!("requests of version {version} are not understood here, only of version {VERSION}"));
        }
        Err(_) => return Err("not a request".to_owned()),
    }
    serde_json::from_slice::<Request>(line).map(|request| request.request).map_err(|_| "unknown request".to_owned())
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("it does not run")]
    NotRunning,
    /// The socket is not for this user.
    #[error("{}: connect: permission denied", .0.display())]
    Denied(PathBuf),
    /// The connection broke, or the answer can't be read.
    #[error("{}: {}", .0.display(), crate::words::of(.1))]
    Broken(PathBuf, io::Error),
}

/// Asks a running forwarder and waits for its answer, at most so long.
///
/// # Errors
/// [`Error::NotRunning`] where nobody listens, [`Error::Denied`], [`Error::Broken`].
pub fn ask(path: &Path, order: Order, limit: Duration) -> Result<Answer, Error> {
    let broken = |error| Error::Broken(path.to_owned(), error);
    let stream = Stream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning,
        io::ErrorKind::PermissionDenied => Error::Denied(path.to_owned()),
        _ => broken(error),
    })?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
    stream.set_read_timeout(Some(limit)).map_err(broken)?;
    let mut request =
        serde_json::to_vec(&Request { version: VERSION, request: order }).map_err(|error| broken(error.into()))?;
    request.push(b'\n');
    (&stream).write_all(&request).map_err(broken)?;
    let mut line = Vec::new();
    let read = BufReader::new(&stream).read_until(b'\n', &mut line);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => broken(io::ErrorKind::TimedOut.into()),
        _ => broken(error),
    })?;
    if line.is_empty() {
        return Err(broken(io::Error::other("it ended before it answered")));
    }
    serde_json::from_slice(&line).map_err(|error| broken(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_of_the_known_version_and_kind() {
        for (line, expected) in [
            (&b"{\"version\":1,\"request\":\"reload\"}\n"[..], Ok(Order::Reload)),
            (b"{\"version\":1,\"request\":\"drain\",\"later\":true}\n", Ok(Order::Drain)),
            (b"{\"version\":1,\"request\":\"reload\"}", Err("a request is one line of at most 4096 bytes")),
            (
                b"{\"version\":2,\"request\":{\"do\":\"x\"}}\n",
                Err("requests of version 2 are not understood here, only of version 1"),
            ),
            (b"{\"version\":1,\"request\":\"explode\"}\n", Err("unknown request")),
            (b"{\"version\":1}\n", Err("unknown request")),
            (b"GET / HTTP/1.1\r\n", Err("not a request")),
            (b"\n", Err("not a request")),
            (b"\xff\xfe\n", Err("not a request")),
        ] {
            assert_eq!(parse(line), expected.map_err(str::to_owned), "{}", String::from_utf8_lossy(line));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_socket_takes_the_place_of_one_left_behind_and_goes_with_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/control");
        fs::create_dir(folder.path().join("deep")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(matches!(ask(&path, Order::Reload, PATIENCE), Err(Error::NotRunning)));
        let control = Control::bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let serving = tokio::spawn(control.serve(|order| async move { Answer::done(format!("{order:?}")) }));
        let asked = path.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&asked, Order::Drain, PATIENCE)).await.unwrap();
        assert_eq!(answer.unwrap(), Answer::done("Drain"));
        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_silent_or_endless_asker_is_left_behind_and_others_are_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let control = Control::bind(&path, None).unwrap();
        tokio::spawn(control.serve(|_| async { Answer::done("yes") }));
        let silent = Stream::connect(&path).unwrap();
        let answer = tokio::task::spawn_blocking(move || {
            let mut endless = Stream::connect(&path).unwrap();
            let _ = endless.write_all(&vec![b'x'; usize::try_from(2 * LONGEST).unwrap()]);
            let mut line = String::new();
            BufReader::new(endless).read_line(&mut line).unwrap();
            (line, ask(&path, Order::Reload, PATIENCE).unwrap())
        });
        let (line, answer) = answer.await.unwrap();
        assert!(line.contains("at most 4096 bytes"), "{line}");
        assert!(answer.ok);
        drop(silent);
    }
}
