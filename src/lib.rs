//! cxgate: a reverse proxy in front of NICE CXone.
