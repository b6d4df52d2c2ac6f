"""Networks of other packages: which are explained rightly, which are refused, and in what words."""
