//! Whether something that happens to a share of the requests happens to this one.

use rand::Rng;

use crate::settings::Percent;

/// True for `share` of the draws. All and nothing cost no random number.
pub(crate) fn hits<R: Rng + ?Sized>(share: Percent, rng: &mut R) -> bool {
    match share.hundredths() {
        0 => false,
        hundredths if hundredths >= Percent::ALL.hundredths() => true,
        hundredths => rng.random_range(0..Percent::ALL.hundredths()) < hundredths,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn a_share_is_hit_as_often_as_it_says() {
        let rng = &mut StdRng::seed_from_u64(1);
        for (percent, least, most) in [(0.0, 0, 0), (0.5, 400, 600), (30.0, 29_000, 31_000), (100.0, 100_000, 100_000)] {
            let share = Percent::try_from(percent).expect("a percentage");
            let hit = (0..100_000).filter(|_| hits(share, rng)).count();
            assert!((least..=most).contains(&hit), "{percent}%: {hit} of 100000");
        }
    }
}
