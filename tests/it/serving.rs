//! The listener: that requests are answered, and that connections begin and end as promised.

mod caps;
mod drain;
mod framing;
mod plain;
mod strict;
