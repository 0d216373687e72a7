from clipdrift.cli import main

main()
