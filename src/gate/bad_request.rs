//! Why a request cannot be understood in one way only.

/// What cannot be understood in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    /// Two identities.
    IdentityAmbiguous,
    /// An identity that is too long or not printable.
    IdentityInvalid,
    /// A limit counts by a header or parameter that is absent or empty.
    LimitKeyMissing,
    /// A path that servers read differently.
    PathAmbiguous,
    /// No host, several, or one that contradicts the target (RFC 9112, section 3.2).
    HostInvalid,
}
