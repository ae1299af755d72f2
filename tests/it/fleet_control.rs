//! What holds for a whole fleet on one Redis: one replica polls a load signal and all follow it, a pause that the upstream
//! asks for is everyone's, and names that one address makes up are counted once.

mod cooldown;
mod day;
mod eviction;
mod lead;
mod newcomers;
