"""HTML pages about runs, nets and images."""
