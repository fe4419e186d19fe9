//! What the caller may ask for at L7, and something that it may not ask for, which the service would answer too.

/// The methods that are allowed.
pub const METHODS: [&str; 2] = ["GET", "POST"];

/// What every allowed path begins with.
pub const PREFIX: &str = "/v1/";

/// 200 bytes.
pub const ITEMS: &str = "/v1/items";

/// A body of [`crate::http::BULK`] bytes.
pub const BYTES: &str = "/v1/bytes";

/// Reads a whole body, then answers with [`ITEMS`]'.
pub const SINK: &str = "/v1/sink";

/// Allowed to nobody, and answered by the service.
pub const FORBIDDEN: &str = "/admin";

/// The gRPC method that is allowed.
pub const UNARY: &str = "/bench.Echo/Unary";

/// The gRPC method that is not, and that the service knows.
pub const FORBIDDEN_CALL: &str = "/bench.Echo/Forbidden";
