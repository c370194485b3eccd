//! An argv lexer.
