//! Door: REST over the bus. It parses, asks, views, answers, and decides nothing.
