//! A number of places that may change while they are taken.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A place that is taken; it is free again when this is dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// So many places, given out in the order of asking.
pub(super) struct Gate {
    places: Arc<Semaphore>,
    size: Mutex<Size>,
}

struct Size {
    limit: usize,
    /// Places that go when they come back: they were taken when the limit shrank.
    owed: usize,
}

impl Gate {
    pub(super) fn new(limit: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(limit)), size: Mutex::new(Size { limit, owed: 0 }) }
    }

    pub(super) fn limit(&self) -> usize {
        self.size().limit
    }

    /// Changes the number of places. Those that are taken stay so, even above a smaller limit.
    pub(super) fn set(&self, limit: usize) {
        let mut size = self.size();
        if limit >= size.limit {
            let more = limit - size.limit;
            let paid = more.min(size.owed);
            size.owed -= paid;
            self.places.add_permits(more - paid);
        } else {
            let fewer = size.limit - limit;
            size.owed += fewer - self.places.forget_permits(fewer);
        }
        size.limit = limit;
    }

    /// Takes a place if one is free and nobody waits for it.
    pub(super) fn try_enter(&self) -> Option<Place> {
        loop {
            let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
            if let Some(place) = self.settled(place) {
                return Some(place);
            }
        }
    }

    /// Waits for a place.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the turn, and nothing else.
    pub(super) async fn enter(&self) -> Option<Place> {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            if let Some(place) = self.settled(place) {
                return Some(place);
            }
        }
    }

    /// The place, unless there is one too many.
    fn settled(&self, place: Place) -> Option<Place> {
        let mut size = self.size();
        if size.owed == 0 {
            return Some(place);
        }
        size.owed -= 1;
        place.forget();
        None
    }

    fn size(&self) -> std::sync::MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(gate: &Gate) -> Vec<Place> {
        std::iter::from_fn(|| gate.try_enter()).collect()
    }

    #[test]
    fn as_many_enter_as_there_are_places() {
        let gate = Gate::new(3);
        let mut taken = fill(&gate);
        assert_eq!(taken.len(), 3);
        taken.pop();
        assert_eq!(fill(&gate).len(), 1);
    }

    #[test]
    fn more_places_are_there_at_once() {
        let gate = Gate::new(2);
        let _taken = fill(&gate);
        gate.set(5);
        assert_eq!((fill(&gate).len(), gate.limit()), (3, 5));
    }

    #[test]
    fn fewer_places_leave_those_inside_alone_and_let_nobody_in_until_enough_have_left() {
        let gate = Gate::new(5);
        let mut taken = fill(&gate);
        gate.set(2);
        taken.truncate(2);
        assert_eq!(fill(&gate).len(), 0, "two are inside");
        taken.pop();
        assert_eq!(fill(&gate).len(), 1);
    }

    #[test]
    fn places_that_are_owed_come_back_with_a_larger_limit() {
        for larger in [3, 5, 8] {
            let gate = Gate::new(5);
            let taken = fill(&gate);
            gate.set(1);
            gate.set(larger);
            let mut inside = fill(&gate);
            assert_eq!(inside.len(), larger.saturating_sub(5), "{larger}");
            drop(taken);
            inside.extend(fill(&gate));
            assert_eq!(inside.len(), larger, "{larger}");
        }
    }

    #[tokio::test]
    async fn who_asked_first_enters_first() {
        let gate = Arc::new(Gate::new(1));
        let taken = gate.try_enter();
        let mut first = Box::pin(gate.enter());
        assert!(polled_once(&mut first).is_none());
        drop(taken);
        assert!(gate.try_enter().is_none(), "the place is the first one's");
        assert!(first.await.is_some());
    }

    fn polled_once<F: std::future::Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
