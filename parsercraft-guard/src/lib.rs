//! parsercraft-guard
