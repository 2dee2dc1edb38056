def check(board, suite, waystation, folder): pass
