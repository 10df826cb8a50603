//! [`FdList`]: the descriptors of one message, in order. A single one, the usual number, needs no allocation.

use std::ops::{Deref, DerefMut};

/// Descriptors of a message, owned or borrowed.
#[derive(Debug, Clone)]
pub(crate) enum FdList<F> {
    AtMostOne(Option<F>),
    Many(Vec<F>),
}

impl<F> FdList<F> {
    /// Removes one descriptor; `None` past the end.
    pub(crate) fn remove(&mut self, index: usize) -> Option<F> {
        match self {
            Self::AtMostOne(fd) if index == 0 => fd.take(),
            Self::Many(fds) if index < fds.len() => Some(fds.remove(index)),
            _ => None,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<F> {
        match self {
            Self::AtMostOne(fd) => fd.into_iter().collect(),
            Self::Many(fds) => fds,
        }
    }
}

impl<F> Default for FdList<F> {
    #[inline]
    fn default() -> Self {
        Self::AtMostOne(None)
    }
}

impl<F> From<Vec<F>> for FdList<F> {
    fn from(fds: Vec<F>) -> Self {
        Self::Many(fds)
    }
}

impl<F> Extend<F> for FdList<F> {
    fn extend<I: IntoIterator<Item = F>>(&mut self, fds: I) {
        let mut fds = fds.into_iter();
        if let Self::AtMostOne(first) = self {
            if first.is_none() {
                *first = fds.next();
            }
            let Some(second) = fds.next() else { return };
            let mut many = Vec::with_capacity(fds.size_hint().0.saturating_add(2));
            many.extend(first.take());
            many.push(second);
            *self = Self::Many(many);
        }
        if let Self::Many(many) = self {
            many.extend(fds);
        }
    }
}

impl<F> Deref for FdList<F> {
    type Target = [F];

    #[inline]
    fn deref(&self) -> &[F] {
        match self {
            Self::AtMostOne(fd) => fd.as_slice(),
            Self::Many(fds) => fds,
        }
    }
}

impl<F> DerefMut for FdList<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        match self {
            Self::AtMostOne(fd) => fd.as_mut_slice(),
            Self::Many(fds) => fds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_extended_and_read_as_a_vector_is() {
        for counts in [[0, 0, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 2, 0], [3, 0, 2], [1, 0, 5]] {
            let (mut list, mut vector) = (FdList::default(), Vec::new());
            let mut numbers = 0..;
            for count in counts {
                let some: Vec<i32> = numbers.by_ref().take(count).collect();
                list.extend(some.iter().copied());
                vector.extend(some);
                assert_eq!(*list, *vector);
                assert!(matches!(list, FdList::AtMostOne(_)) == (vector.len() < 2));
            }
            list.iter_mut().chain(&mut vector).for_each(|number| *number += 7);
            assert_eq!(list.clone().into_vec(), vector);
            assert_eq!(*FdList::from(vector.clone()), *vector);
        }
    }

    #[test]
    fn missing_descriptors_are_not_removed() {
        for numbers in [vec![], vec![1], vec![1, 2, 3]] {
            let mut list = FdList::default();
            list.extend(numbers.iter().copied());
            assert_eq!(list.remove(numbers.len()), None);
            assert_eq!(list.remove(usize::MAX), None);
            let removed: Vec<i32> = std::iter::from_fn(|| list.remove(0)).collect();
            assert_eq!((removed, list.len()), (numbers, 0));
        }
    }
}
