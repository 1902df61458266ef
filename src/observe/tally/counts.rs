//! Counts by what is counted: few kinds, each with a number.

/// How often each kind came. Looked through from the front: kinds are few, and the frequent ones come first.
#[derive(Clone, Debug)]
pub(super) struct Counts<Kind>(Vec<(Kind, u64)>);

impl<Kind> Default for Counts<Kind> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Kind> Counts<Kind> {
    /// Counts one more of the kind that `is` it; `new` makes one that has not come before.
    pub(super) fn add(&mut self, is: impl Fn(&Kind) -> bool, new: impl FnOnce() -> Kind) {
        match self.0.iter_mut().find(|(kind, _)| is(kind)) {
            Some((_, count)) => *count += 1,
            None => self.0.push((new(), 1)),
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Kind, u64)> {
        self.0.iter().map(|(kind, count)| (kind, *count))
    }

    /// All kinds together.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_by_itself() {
        let mut counts = Counts::default();
        for kind in ["a", "b", "a"] {
            counts.add(|known| *known == kind, || kind);
        }
        assert_eq!(counts.iter().map(|(kind, count)| (*kind, count)).collect::<Vec<_>>(), [("a", 2), ("b", 1)]);
        assert_eq!(counts.total(), 3);
    }
}
