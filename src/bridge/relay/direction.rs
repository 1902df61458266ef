//! One of a connection's two directions: its buffer, and how far it is.

use std::task::{Context, Poll, ready};

use super::{End, TURNS};
use crate::leg::buffer::Buffer;
use crate::leg::{Ending, Fill, Leg};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Bytes may come.
    Open,
    /// The source has ended so, and the sink is not to be told yet.
    Held(Ending),
    /// The source has ended; the sink must be told so after the last byte.
    Ending(Ending),
    /// The sink has been told.
    Done,
    /// The sink can't be written to any more. What still comes is dropped: a source that sends all
    /// before it reads would otherwise never come to read the answer.
    Broken,
}

/// What becomes of the source's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Custom {
    /// Whether an end that is not a reset is kept back until [`Direction::release`].
    pub(super) holds: bool,
    /// What a FIN without close_notify is passed on as.
    pub(super) fin: Ending,
}

#[derive(Debug)]
pub(super) struct Direction {
    /// Held while bytes are in it.
    buffer: Option<Buffer>,
    /// How much of a buffer is used.
    room: usize,
    start: usize,
    end: usize,
    pub(super) state: State,
    /// Bytes that the sink has taken.
    pub(super) moved: u64,
    /// Something was written since the last flush.
    unflushed: bool,
    /// How the source ended, until the relay has taken note.
    pub(super) news: Option<End>,
    has_ended: bool,
    /// How much may still be dropped.
    drop_left: usize,
    custom: Custom,
}

/// What is read in vain from a source whose sink is lost, at most; from then on it waits. As much as
/// a lingering close reads.
const DROPPED: usize = 64 << 20;

impl Direction {
    pub(super) fn new(custom: Custom, room: usize) -> Self {
        Self {
            buffer: None,
            room,
            start: 0,
            end: 0,
            state: State::Open,
            moved: 0,
            unflushed: false,
            news: None,
            has_ended: false,
            drop_left: DROPPED,
            custom,
        }
    }

    /// Goes as far as it can without waiting; whether anything has changed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, source: &mut impl Leg, sink: &mut impl Leg) -> bool {
        for turn in 0..TURNS {
            let step = match self.state {
                State::Done => Poll::Pending,
                State::Broken => self.drop_more(cx, source),
                _ if self.start < self.end => self.write(cx, sink),
                State::Open => self.fill(cx, source, sink),
                State::Held(_) => self.flush(cx, sink),
                State::Ending(how) => self.pass_end(cx, sink, how),
            };
            if step.is_pending() {
                return turn > 0;
            }
        }
        true
    }

    /// Takes what the source gives at once, until the buffer is full: the fewer and larger the writes, the
    /// fewer the records and system calls.
    fn fill(&mut self, cx: &mut Context<'_>, source: &mut impl Leg, sink: &mut impl Leg) -> Poll<()> {
        let mut buffer = Buffer::take();
        (self.start, self.end) = (0, 0);
        while self.end < self.room {
            match self.read(cx, source, &mut buffer[self.end..self.room]) {
                Poll::Ready(Some(count)) => self.end += count,
                Poll::Ready(None) => {
                    self.state = match self.news {
                        Some(End::Peer(how @ (Ending::CloseNotify | Ending::Fin | Ending::Truncated))) => {
                            self.told(how)
                        }
                        _ => State::Ending(Ending::Reset),
                    };
                    break;
                }
                Poll::Pending if self.end > 0 => break,
                Poll::Pending => return self.flush(cx, sink),
            }
        }
        if self.end > 0 {
            self.buffer = Some(buffer);
        }
        Poll::Ready(())
    }

    /// What becomes of an end that is not a reset.
    fn told(&self, how: Ending) -> State {
        match how {
            _ if self.custom.holds => State::Held(how),
            Ending::Fin => State::Ending(self.custom.fin),
            _ => State::Ending(how),
        }
    }

    /// `None`: the source has ended, and `news` says how.
    fn read(&mut self, cx: &mut Context<'_>, source: &mut impl Leg, buffer: &mut [u8]) -> Poll<Option<usize>> {
        let end = match ready!(source.poll_fill(cx, buffer)) {
            Ok(Fill::Bytes(count)) => return Poll::Ready(Some(count)),
            Ok(Fill::Ended(how)) => End::Peer(how),
            Err(error) => End::Failed(error),
        };
        self.news = Some(end);
        self.has_ended = true;
        Poll::Ready(None)
    }

    fn drop_more(&mut self, cx: &mut Context<'_>, source: &mut impl Leg) -> Poll<()> {
        if self.has_ended || self.drop_left == 0 {
            return Poll::Pending;
        }
        if let Some(count) = ready!(self.read(cx, source, &mut Buffer::take())) {
            self.drop_left = self.drop_left.saturating_sub(count);
        }
        Poll::Ready(())
    }

    fn write(&mut self, cx: &mut Context<'_>, sink: &mut impl Leg) -> Poll<()> {
        let Some(buffer) = &self.buffer else { return Poll::Pending };
        match sink.poll_write(cx, &buffer[self.start..self.end]) {
            Poll::Ready(Ok(count)) => {
                self.start += count;
                if self.start == self.end {
                    self.buffer = None;
                }
                self.moved += count as u64;
                self.unflushed = true;
            }
            Poll::Ready(Err(_)) => self.state = State::Broken,
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// Nothing comes for now, so that what was written should leave; `Ready` only if the sink is lost.
    fn flush(&mut self, cx: &mut Context<'_>, sink: &mut impl Leg) -> Poll<()> {
        if !self.unflushed {
            return Poll::Pending;
        }
        match sink.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.unflushed = false,
            Poll::Ready(Err(_)) => {
                self.state = State::Broken;
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        Poll::Pending
    }

    fn pass_end(&mut self, cx: &mut Context<'_>, sink: &mut impl Leg, how: Ending) -> Poll<()> {
        if how == Ending::Reset && self.unflushed {
            // A reset waits for nothing, so what was taken must have left before it.
            match sink.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => {
                    self.state = State::Broken;
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        match sink.poll_end(cx, how) {
            Poll::Ready(Ok(())) => self.state = State::Done,
            Poll::Ready(Err(_)) => self.state = State::Broken,
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// Lets an end go that was kept back.
    pub(super) fn release(&mut self) {
        if let State::Held(how) = self.state {
            self.state = State::Ending(how);
        }
    }

    /// Bytes that the source has given.
    pub(super) fn taken(&self) -> u64 {
        self.moved + (self.end - self.start) as u64
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Broken)
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held(_)) && self.start == self.end
    }

    /// Bytes wait for a sink that does not take them.
    pub(super) fn is_stuck(&self) -> bool {
        self.start < self.end && !self.is_over()
    }

    /// Whether the source is looked at: it has not ended, and what it gave is passed on.
    pub(super) fn is_listening(&self) -> bool {
        self.state == State::Open && self.start == self.end
    }
}
