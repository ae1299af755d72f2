//! `cxgate fetch`: pages through the gate, their entities in order, nothing lost and nothing twice.

mod budget;
mod command;
mod pages;
mod resuming;
mod walking;
