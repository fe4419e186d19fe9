//! Where an instance runs: `REGION` or `REGION/ZONE`.

/// A place, as `--locality` names it. Regions and zones are opaque texts; a zone means something inside its region only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Locality<'a> {
    /// Such as `eu-west`; not empty.
    pub region: &'a str,
    /// Such as `b`; not empty.
    pub zone: Option<&'a str>,
}

/// How near a place is to another one; the nearer is the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    /// The same zone of the same region.
    Zone,
    /// The same region.
    Region,
    /// Another region, or one of the two does not say where it is.
    Elsewhere,
}

impl<'a> Locality<'a> {
    /// Reads `REGION` or `REGION/ZONE`; none where no region is given.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (region, zone) = match text.split_once('/') {
            Some((region, zone)) => (region, Some(zone).filter(|zone| !zone.is_empty())),
            None => (text, None),
        };
        (!region.is_empty()).then_some(Self { region, zone })
    }

    /// How near `other` is.
    pub fn nearness(self, other: Locality<'_>) -> Nearness {
        match (self.zone, other.zone) {
            _ if self.region != other.region => Nearness::Elsewhere,
            (Some(own), Some(other)) if own == other => Nearness::Zone,
            _ => Nearness::Region,
        }
    }
}

/// How near `other` is to `own`, where either may be unknown.
pub(crate) fn nearness(own: Option<Locality<'_>>, other: Option<Locality<'_>>) -> Nearness {
    own.zip(other).map_or(Nearness::Elsewhere, |(own, other)| own.nearness(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_counts_in_its_own_region_only() {
        let near = |own, other| nearness(Locality::parse(own), Locality::parse(other));
        assert_eq!(near("eu/a", "eu/a"), Nearness::Zone);
        assert_eq!(near("eu/a", "eu/b"), Nearness::Region);
        assert_eq!(near("eu/a", "us/a"), Nearness::Elsewhere);
        assert_eq!(near("eu/a", "eu"), Nearness::Region);
        assert_eq!(near("eu", "eu"), Nearness::Region, "without a zone nobody knows that it is the same");
        for unknown in ["", "/a"] {
            assert_eq!(near("eu/a", unknown), Nearness::Elsewhere);
            assert_eq!(near(unknown, "eu/a"), Nearness::Elsewhere);
        }
    }
}
