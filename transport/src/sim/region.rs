//! Memory that peers may be admitted to.

use crate::RevokeKind;
use crate::contract::driver::RegionDriver;

pub(super) struct SimRegion;

impl RegionDriver for SimRegion {
    fn revoke_kind(&self) -> RevokeKind {
        RevokeKind::Access
    }
}
