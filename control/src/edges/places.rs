//! Places of those who follow: bounded in all, and for each holder of a token, so that none keeps the others out.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Followers at once.
pub const FOLLOWERS: usize = 100;
/// Of those, whoever is not the operator: the rest is kept for it.
pub const OTHERS: usize = 80;
/// Of those, the ones of a token, or of an address without one.
pub const OF_HOLDER: usize = 16;

/// Who follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Follower {
    /// The operator, by token or on the UNIX socket.
    Operator,
    /// The holder of this token of access control.
    Token(String),
    /// Whoever shows none and comes from here.
    Address(String),
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// As many follow as are served.
    AllTaken,
    /// As many of this holder do as may.
    ShareTaken,
}

#[derive(Debug, Default)]
struct Taken {
    operators: usize,
    others: HashMap<Follower, usize>,
}

impl Taken {
    fn others(&self) -> usize {
        self.others.values().sum()
    }
}

/// All places.
#[derive(Debug, Default, Clone)]
pub struct Places(Arc<Mutex<Taken>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Place {
    of: Follower,
    places: Places,
}

impl Places {
    /// A place for somebody.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn take(&self, follower: Follower) -> Result<Place, NoPlace> {
        let mut taken = self.0.lock();
        let others = taken.others();
        if taken.operators + others >= FOLLOWERS {
            return Err(NoPlace::AllTaken);
        }
        if follower == Follower::Operator {
            taken.operators += 1;
        } else {
            if taken.others.get(&follower).is_some_and(|of| *of >= OF_HOLDER) {
                return Err(NoPlace::ShareTaken);
            }
            if others >= OTHERS {
                return Err(NoPlace::AllTaken);
            }
            *taken.others.entry(follower.clone()).or_default() += 1;
        }
        Ok(Place { of: follower, places: self.clone() })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        let taken = self.0.lock();
        taken.operators + taken.others()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if self.of == Follower::Operator {
            taken.operators = taken.operators.saturating_sub(1);
        } else if let Some(of) = taken.others.get_mut(&self.of) {
            *of = of.saturating_sub(1);
            if *of == 0 {
                taken.others.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: usize) -> Follower {
        Follower::Token(format!("t{name}"))
    }

    #[test]
    fn no_token_keeps_another_out_and_all_together_not_the_operator() {
        let places = Places::default();
        let mut held: Vec<Place> = (0..OF_HOLDER).map(|_| places.take(token(0)).unwrap()).collect();
        assert_eq!(places.take(token(0)).unwrap_err(), NoPlace::ShareTaken);
        for name in 1..OTHERS / OF_HOLDER {
            held.extend((0..OF_HOLDER).map(|_| places.take(token(name)).unwrap()));
        }
        assert_eq!(places.take(Follower::Address("192.0.2.1".into())).unwrap_err(), NoPlace::AllTaken);
        held.extend((OTHERS..FOLLOWERS).map(|_| places.take(Follower::Operator).unwrap()));
        assert_eq!((places.take(Follower::Operator).unwrap_err(), places.taken()), (NoPlace::AllTaken, FOLLOWERS));
        drop(held);
        assert_eq!((places.taken(), places.0.lock().others.len()), (0, 0));
        assert!(places.take(token(0)).is_ok());
    }
}
