//! Moves bytes between two legs until both have ended.
//!
//! Knows no TLS and no sockets. One buffer of 64 KiB a direction is all that is ever held: while it is
//! not empty nothing more is read from that side, and that is the back-pressure. An empty one is given
//! back, so that a connection at rest holds none. The legs hold one each in either direction, of what was
//! read and of what is to leave, on the same terms.
//!
//! Invariants:
//! * bytes leave in the order they came, each exactly once;
//! * an ending is passed on as it came, after every byte before it, but for what [`Terms`] says;
//! * a side that can't be written to any more is still read to its end, so that an answer sent
//!   before the connection broke arrives whole;
//! * a reset or a failure of one side is passed on as a reset, after every byte that came before it;
//!   what was under way to that side is dropped with it.

mod direction;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use self::direction::{Custom, Direction, State};
use crate::leg::{Ending, Leg, buffer};
use crate::observe::progress::Progress;

/// How long silence may last.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While both directions are open; `None`: forever.
    pub open: Option<Duration>,
    /// Once one direction has ended.
    pub half_closed: Duration,
    /// For the peers to take what was sent and end in turn.
    pub linger: Duration,
}

/// What an admin may have otherwise than as it comes.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long silence may last.
    pub patience: Patience,
    /// What the target's FIN without close_notify becomes for the client.
    pub target_fin: Ending,
    /// Keeps the client's end from the target while an answer is owed, or flows: while the last byte
    /// of one is no older than this. `None`: the end is passed on at once.
    ///
    /// Silence of [`Patience::half_closed`] ends it too; from then on that time counts anew.
    pub hold: Option<Duration>,
}

/// Which leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The modern one.
    Client,
    /// The legacy one.
    Target,
    /// Neither: we ended it.
    Bridge,
}

/// How a connection went.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes taken from the client and given to the target.
    pub up: u64,
    /// Bytes taken from the target and given to the client.
    pub down: u64,
    /// Who ended it: the first side whose end was seen.
    pub by: Side,
    /// How.
    pub end: End,
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// As the peer said.
    Peer(Ending),
    /// A leg failed: a broken record, a lost connection.
    Failed(io::Error),
    /// Silence beyond the patience.
    Silent(Duration),
    /// The peer has vanished: it has answered nothing for so long, not even TCP itself.
    Unanswered(Duration),
}

/// How often a direction goes on before the other gets its turn, and how many turns both get
/// before other connections do.
const TURNS: usize = 16;

/// Moves bytes until both legs have ended, one has failed, or silence lasts too long; `progress` shows
/// others meanwhile how many.
///
/// # Cancel safety
/// Dropping the future drops bytes in its buffers: only for ending the connection.
pub async fn run(client: &mut impl Leg, target: &mut impl Leg, terms: Terms, progress: &Progress) -> Outcome {
    run_within(client, target, terms, buffer::STREAM, progress).await
}

/// The same with so much of each buffer in use.
async fn run_within(
    client: &mut impl Leg,
    target: &mut impl Leg,
    terms: Terms,
    room: usize,
    progress: &Progress,
) -> Outcome {
    let mut relay = Relay::new(terms, room, progress);
    let outcome = poll_fn(|cx| relay.poll(cx, client, target)).await;
    // A client that is gone takes nothing more. One whose target broke off may have an answer to read.
    let client_is_gone = outcome.by == Side::Client && matches!(outcome.end, End::Failed(_) | End::Peer(Ending::Reset));
    if !client_is_gone && !matches!(outcome.end, End::Silent(_)) {
        let mut left = (true, true);
        let lingering = poll_fn(|cx| {
            left.0 = left.0 && target.poll_linger(cx).is_pending();
            left.1 = left.1 && client.poll_linger(cx).is_pending();
            if left == (false, false) { Poll::Ready(()) } else { Poll::Pending }
        });
        // Who does not end in time is closed all the same.
        let _ = tokio::time::timeout(terms.patience.linger, lingering).await;
    }
    outcome
}

struct Relay<'a> {
    progress: &'a Progress,
    up: Direction,
    down: Direction,
    /// The end that was seen first: the one to tell.
    first: Option<(Side, End)>,
    terms: Terms,
    /// Bytes went up, and none has come down since.
    owed: bool,
    /// When the target's last byte came.
    answered: Option<Instant>,
    /// The client has ended behind bytes that the target does not take.
    hidden_end: bool,
    last_progress: Instant,
    /// When the legs were last asked whether they are gone.
    last_look: Instant,
    alarm: Pin<Box<Sleep>>,
}

/// How often a side that is not read is asked whether it is still there.
const LOOK: Duration = Duration::from_secs(1);

impl<'a> Relay<'a> {
    fn new(terms: Terms, room: usize, progress: &'a Progress) -> Self {
        let now = Instant::now();
        let alarm = Box::pin(tokio::time::sleep_until(now));
        Self {
            progress,
            up: Direction::new(Custom { holds: terms.hold.is_some(), fin: Ending::Fin }, room),
            down: Direction::new(Custom { holds: false, fin: terms.target_fin }, room),
            first: None,
            terms,
            owed: false,
            answered: None,
            hidden_end: false,
            last_progress: now,
            last_look: now,
            alarm,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, client: &mut impl Leg, target: &mut impl Leg) -> Poll<Outcome> {
        for _ in 0..TURNS {
            let (asked, answered) = (self.up.moved, self.down.taken());
            let up_moved = self.up.poll(cx, client, target);
            let down_moved = self.down.poll(cx, target, client);
            self.note_ends();
            if self.is_over() {
                self.drop_what_is_left(client, target);
                return Poll::Ready(self.outcome());
            }
            if up_moved || down_moved {
                self.last_progress = Instant::now();
                self.progress.note(self.up.moved, self.down.moved, self.last_progress);
                self.owed |= self.up.moved > asked;
            }
            if self.down.taken() > answered {
                (self.owed, self.answered) = (false, Some(self.last_progress));
            }
            if !self.release() && !up_moved && !down_moved {
                return self.wait(cx, client, target);
            }
        }
        again(cx)
    }

    /// Takes note of what the directions have met. A side that is gone needs no more bytes.
    fn note_ends(&mut self) {
        let gone = |end: &End| matches!(end, End::Failed(_) | End::Peer(Ending::Reset));
        if let Some(end) = self.up.news.take() {
            if gone(&end) {
                self.down.state = State::Broken;
            }
            self.first.get_or_insert((Side::Client, end));
        }
        if let Some(end) = self.down.news.take() {
            if gone(&end) {
                self.up.state = State::Broken;
            }
            self.first.get_or_insert((Side::Target, end));
        }
    }

    /// Both directions are over, or the client can't be answered any more: then the target, which
    /// may hold one of Exchange's few streaming places for it, is let go as soon as it has what the
    /// client sent before a reset.
    fn is_over(&self) -> bool {
        let up_is_over = self.up.is_over();
        match self.down.state {
            State::Broken => up_is_over || self.up.state != State::Ending(Ending::Reset),
            _ => up_is_over && self.down.is_over(),
        }
    }

    /// Lets a client's end go whose time has come.
    fn release(&mut self) -> bool {
        let Some(at) = self.release_at() else { return false };
        let now = Instant::now();
        if at <= now {
            self.up.release();
            self.last_progress = now;
        }
        at <= now
    }

    /// Waits for the legs, with a limit to the silence and an eye on those that are not read.
    fn wait(&mut self, cx: &mut Context<'_>, client: &mut impl Leg, target: &mut impl Leg) -> Poll<Outcome> {
        loop {
            let release = self.release_at();
            let limit = if release.is_some() { None } else { self.limit() };
            let silent = limit.map(|limit| self.last_progress + limit);
            let look = (self.is_client_unheard() || self.is_target_unheard())
                .then(|| self.last_look.max(self.last_progress) + LOOK);
            let Some(deadline) = [release, silent, look].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            if self.alarm.deadline() != deadline {
                self.alarm.as_mut().reset(deadline);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            self.last_look = now;
            let by = if self.is_client_unheard() && client.is_gone() {
                (Side::Client, End::Peer(Ending::Reset))
            } else if self.is_target_unheard() && target.is_gone() {
                // Its own end is known already, and it takes no more.
                self.up.state = State::Broken;
                return again(cx);
            } else if release.is_some_and(|release| release <= now) {
                return again(cx);
            } else if let Some(limit) = limit.filter(|limit| self.last_progress + *limit <= now) {
                (Side::Bridge, End::Silent(limit))
            } else {
                if !self.hidden_end && self.up.is_stuck() && client.has_ended() {
                    self.hidden_end = true;
                    self.last_progress = now;
                }
                continue;
            };
            self.first = Some(by);
            self.drop_what_is_left(client, target);
            return Poll::Ready(self.outcome());
        }
    }

    /// How long silence may last as things are.
    fn limit(&self) -> Option<Duration> {
        let patience = &self.terms.patience;
        if self.first.is_none() && !self.hidden_end { patience.open } else { Some(patience.half_closed) }
    }

    /// When the client's end is passed on if nothing comes down until then; `None`: none is kept back.
    fn release_at(&self) -> Option<Instant> {
        let hold = self.terms.hold.filter(|_| self.up.is_held())?;
        let in_silence = self.last_progress + self.terms.patience.half_closed;
        if self.down.state != State::Open {
            return Some(self.last_progress);
        }
        if self.owed || self.down.is_stuck() {
            return Some(in_silence);
        }
        Some(self.answered.map_or(self.last_progress, |last| in_silence.min(last + hold)))
    }

    /// A reset of the client's would go unheard, and there is something to answer it with. Where both
    /// have ended, TCP ends by itself.
    fn is_client_unheard(&self) -> bool {
        !self.up.is_listening() && !self.down.is_over()
    }

    /// A reset of the target's would go unheard, though it has ended its own direction.
    fn is_target_unheard(&self) -> bool {
        self.down.state != State::Open && !self.up.is_over()
    }

    /// Ends what has not ended in due form, without a word that could be taken for a whole answer.
    fn drop_what_is_left(&self, client: &mut impl Leg, target: &mut impl Leg) {
        let mut cx = Context::from_waker(Waker::noop());
        if self.down.state != State::Done {
            let _ = client.poll_end(&mut cx, Ending::Reset);
        }
        // An answered connection whose target stopped reading has ended well enough.
        let answered = self.down.state == State::Done && self.up.state == State::Broken;
        if self.up.state != State::Done && !answered {
            let _ = target.poll_end(&mut cx, Ending::Reset);
        }
    }

    fn outcome(&mut self) -> Outcome {
        let lost = || (Side::Client, End::Failed(io::ErrorKind::BrokenPipe.into()));
        let (by, end) = self.first.take().unwrap_or_else(lost);
        Outcome { up: self.up.moved, down: self.down.moved, by, end }
    }
}

/// Lets others have their turn, and is polled again.
fn again(cx: &mut Context<'_>) -> Poll<Outcome> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
