//! One of a connection's two directions: its buffer, and how far it is.

use std::task::{Context, Poll};

use super::{BUFFER, End, TURNS};
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
    /// The sink can't be written to any more; the source is left alone.
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
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    pub(super) state: State,
    /// Bytes that the sink has taken.
    pub(super) moved: u64,
    /// Something was written since the last flush.
    unflushed: bool,
    /// How the source ended, until the relay has taken note.
    pub(super) news: Option<End>,
    custom: Custom,
}

impl Direction {
    pub(super) fn new(custom: Custom) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { buffer, start: 0, end: 0, state: State::Open, moved: 0, unflushed: false, news: None, custom }
    }

    /// Goes as far as it can without waiting; whether anything has changed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, source: &mut impl Leg, sink: &mut impl Leg) -> bool {
        for turn in 0..TURNS {
            let step = match self.state {
                State::Done | State::Broken => Poll::Pending,
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

    fn fill(&mut self, cx: &mut Context<'_>, source: &mut impl Leg, sink: &mut impl Leg) -> Poll<()> {
        match source.poll_fill(cx, &mut self.buffer) {
            Poll::Ready(Ok(Fill::Bytes(count))) => (self.start, self.end) = (0, count),
            Poll::Ready(Ok(Fill::Ended(how))) => {
                self.state = match how {
                    Ending::Reset => State::Ending(how),
                    _ if self.custom.holds => State::Held(how),
                    Ending::Fin => State::Ending(self.custom.fin),
                    Ending::CloseNotify | Ending::Truncated => State::Ending(how),
                };
                self.news = Some(End::Peer(how));
            }
            Poll::Ready(Err(error)) => {
                self.state = State::Ending(Ending::Reset);
                self.news = Some(End::Failed(error));
            }
            Poll::Pending => return self.flush(cx, sink),
        }
        Poll::Ready(())
    }

    fn write(&mut self, cx: &mut Context<'_>, sink: &mut impl Leg) -> Poll<()> {
        match sink.poll_write(cx, &self.buffer[self.start..self.end]) {
            Poll::Ready(Ok(count)) => {
                self.start += count;
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
        matches!(self.state, State::Held(_))
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
