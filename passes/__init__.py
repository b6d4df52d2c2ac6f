"""The passes, one a file; `naflow_fx.compiler.PIPELINE` lists them in order."""
